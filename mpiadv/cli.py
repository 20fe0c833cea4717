"""The `mpiadv` command: its first word chooses what to do, anything else trains. No logic here."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpiadv.errors import UserError
from mpiadv.interruption import SignalRelay

USAGE = """\
usage: mpiadv [CONFIG] [key.subkey=value ...] [--resume] [--print-config]
       mpiadv launch -n RANKS [CONFIG] [key.subkey=value ...] [--resume]
       mpiadv evaluate CHECKPOINT ... [--attack NAME:steps=K,...] [--protocol NAME] [--help]
       mpiadv report LOG_OR_RUN_FOLDER ... [--output PAGE] [--figures FOLDER] [--overwrite]
       mpiadv watch LOG_OR_RUN_FOLDER [--every SECONDS] [--once]
       mpiadv plan [CONFIG] [key.subkey=value ...] [--ranks N,N,...] [--help]
       mpiadv study NAME --preset smoke|small|paper [--output FOLDER] [--help]
       mpiadv submit [CONFIG] [key.subkey=value ...] --gpus N [--nodes N] [--dry-run] [--help]

Trains a robust classifier; CONFIG is a YAML file, and without one a small data set of digits is
trained in a minute.

  mpiadv CONFIG ...           train on one rank, or on those of the mpirun or srun around it
  mpiadv launch -n 8 CONFIG   train on 8 ranks of this machine, or of this allocation
  mpiadv evaluate FOLDER ...  attack trained networks; after launch -n 8: on 8 ranks
  mpiadv report FOLDER ...    write a page of figures about runs, from their logs
  mpiadv watch FOLDER         show a run in the terminal as it goes on
  mpiadv plan CONFIG          say how fast a job will be on how many ranks, and what limits it
  mpiadv study power ...      rerun a study of the paper, from its runs to its figures
  mpiadv submit CONFIG ...    train in a Slurm job, which goes on until the run is done
  key.subkey=value            change a setting, for example training.num_steps=500
  --fault-tolerant            after launch -n 8, or submit: go on without lost attackers
  --resume                    go on from the last checkpoint in the run's folder
  --trust-code                run the functions that a file names as its model or data set
  --print-config              print every setting with its value, and stop

exit codes: 0 finished, 1 failed, 2 bad input, 75 interrupted: --resume goes on
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; bad input is one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        command = COMMANDS.get(arguments[0]) if arguments else None
        return command(arguments[1:]) if command else _train(arguments)
    except UserError as error:
        print(f"mpiadv: error: {error}", file=sys.stderr)
        return 2


def _train(arguments: Sequence[str]) -> int:
    if arguments and arguments[0].isalpha() and not Path(arguments[0]).exists():
        # A misspelt command would be looked for as a configuration file.
        for meant in difflib.get_close_matches(arguments[0], COMMANDS, n=1):
            raise UserError(f"no command {arguments[0]}: did you mean mpiadv {meant}?")
    # Imported only here: the other commands need neither torch nor MPI, and start at once.
    from mpiadv.run import main as run

    return run(arguments)


def _launch(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if len(arguments) < 2 or arguments[0] != "-n" or not arguments[1].isdigit():
        raise UserError("launch: expected the number of ranks first: mpiadv launch -n 4 CONFIG")
    fault_tolerant = "--fault-tolerant" in arguments
    words = [word for word in arguments[2:] if word != "--fault-tolerant"]
    with SignalRelay().listening() as relay:
        # Only now: a request to end may come while it is loaded.
        from mpiadv.launch import launch

        return launch(int(arguments[1]), words, relay, fault_tolerant=fault_tolerant)


def _evaluate(arguments: Sequence[str]) -> int:
    from mpiadv.evaluate import main as evaluate

    return evaluate(arguments)


def _plan(arguments: Sequence[str]) -> int:
    from mpiadv.plan import main as plan

    return plan(arguments)


def _report(arguments: Sequence[str]) -> int:
    from mpiadv.report.command import main as report

    return report(arguments)


def _watch(arguments: Sequence[str]) -> int:
    from mpiadv.watch.command import main as watch

    return watch(arguments)


def _study(arguments: Sequence[str]) -> int:
    from mpiadv.study.command import main as study

    return study(arguments)


def _submit(arguments: Sequence[str]) -> int:
    from mpiadv.submit.command import main as submit

    return submit(arguments)


def _job(arguments: Sequence[str]) -> int:
    from mpiadv.submit.attempt import Attempt

    attempt = Attempt()
    attempt.listen()
    # Only now: Slurm may warn of the job's end while it is loaded.
    from mpiadv.submit.job import main as job

    return job(arguments, attempt)


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "evaluate": _evaluate,
    "job": _job,
    "launch": _launch,
    "plan": _plan,
    "report": _report,
    "study": _study,
    "submit": _submit,
    "watch": _watch,
}
"""First word of the command line to what it does. A folder called `launch` is `./launch`."""


if __name__ == "__main__":
    sys.exit(main())
