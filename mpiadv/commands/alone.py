"""What commands of a single process do, once their line is read; each returns its exit code.

No logic. They raise UserError, and load what does the work when they are called: some have to
listen to signals before that.
"""

import argparse
from contextlib import suppress

from mpiadv.cluster.attempt import Attempt
from mpiadv.command_lines.launch import Launch
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.lifeline import end_with_the_starter


def job(asked: argparse.Namespace) -> int:
    """Work in the Slurm job around us."""
    attempt = Attempt()
    attempt.listen()
    # Only now: Slurm may warn of the job's end while it is loaded.
    from mpiadv.cluster.job import work_in_job

    return work_in_job(asked.words, attempt, chain=asked.chain)


def launch(asked: Launch) -> int:
    """Launch ranks; the exit code is theirs."""
    with SignalRelay().listening() as relay:
        end_with_the_starter()
        # Only now: a request to end may come while it is loaded.
        from mpiadv.cluster.launch import launch, require_configuration

        require_configuration(asked)
        return launch(asked, relay)


def report(asked: argparse.Namespace) -> int:
    """Write the report."""
    from mpiadv.report.writing import write_report

    print(write_report(**vars(asked)))
    return EXIT_DONE


def study(asked: argparse.Namespace) -> int:
    """Do a study."""
    end_with_the_starter()
    from mpiadv.studies.conduct import conduct

    return conduct(asked)


def submit(asked: argparse.Namespace) -> int:
    """Submit a job."""
    from mpiadv.cluster.submission import submit

    print(submit(asked), end="")
    return EXIT_DONE


def visualize(asked: argparse.Namespace) -> int:
    """Draw networks' features."""
    from mpiadv.examination.visualization import visualize

    print(visualize(asked))
    return EXIT_DONE


def watch(asked: argparse.Namespace) -> int:
    """Watch until the run is done, or Ctrl-C."""
    from mpiadv.report.watching import watch

    with suppress(KeyboardInterrupt):
        watch(**vars(asked))
    return EXIT_DONE
