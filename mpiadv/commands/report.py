"""`mpiadv report`. No logic."""

from collections.abc import Sequence

from mpiadv.command_lines.report import read
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.report.writing import write_report


def main(argv: Sequence[str]) -> int:
    """Write the report; returns the exit code. Raises UserError."""
    if asked := read(argv):
        print(write_report(**vars(asked)))
    return EXIT_DONE
