"""`mpiadv job`. No logic."""

from collections.abc import Sequence

from mpiadv.cluster.attempt import Attempt
from mpiadv.command_lines.job import read
from mpiadv.process.exit_codes import EXIT_DONE


def main(argv: Sequence[str]) -> int:
    """Work in the Slurm job around us; returns the exit code. Raises UserError."""
    attempt = Attempt()
    attempt.listen()
    # Only now: Slurm may warn of the job's end while it is loaded.
    from mpiadv.cluster.job import work_in_job

    asked = read(argv)
    return work_in_job(asked.words, attempt, chain=asked.chain) if asked else EXIT_DONE
