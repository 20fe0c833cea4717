"""`mpiadv study`. No logic."""

from collections.abc import Sequence

from mpiadv.command_lines.study import read
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.studies.conduct import conduct


def main(argv: Sequence[str]) -> int:
    """Do a study; returns the exit code. Raises UserError."""
    asked = read(argv)
    if asked is None:
        return EXIT_DONE
    end_with_the_starter()
    return conduct(asked)
