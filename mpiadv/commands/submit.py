"""`mpiadv submit`. No logic."""

from collections.abc import Sequence

from mpiadv.cluster.submission import submit
from mpiadv.command_lines.submit import read
from mpiadv.process.exit_codes import EXIT_DONE


def main(argv: Sequence[str]) -> int:
    """Submit a job; returns the exit code. Raises UserError."""
    if asked := read(argv):
        print(submit(asked), end="")
    return EXIT_DONE
