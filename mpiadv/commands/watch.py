"""`mpiadv watch`. No logic."""

from collections.abc import Sequence
from contextlib import suppress

from mpiadv.command_lines.watch import read
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.report.watching import watch


def main(argv: Sequence[str]) -> int:
    """Watch until the run is done, or Ctrl-C; returns the exit code. Raises UserError."""
    if asked := read(argv):
        with suppress(KeyboardInterrupt):
            watch(**vars(asked))
    return EXIT_DONE
