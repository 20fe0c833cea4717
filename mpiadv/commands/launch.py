"""`mpiadv launch`. No logic."""

from collections.abc import Sequence

from mpiadv.command_lines.launch import read
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.lifeline import end_with_the_starter


def main(argv: Sequence[str]) -> int:
    """Launch ranks; returns their exit code. Raises UserError."""
    wanted = read(argv)
    if wanted is None:
        return EXIT_DONE
    with SignalRelay().listening() as relay:
        end_with_the_starter()
        # Only now: a request to end may come while it is loaded.
        from mpiadv.cluster.launch import launch

        return launch(wanted, relay)
