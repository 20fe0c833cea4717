"""What may be said after each command, and how what may not is refused. Loads no torch, no MPI."""

from mpiadv.command_lines.described import (
    TRUST_HELP,
    TRUST_OPTION,
    CommandLine,
    is_answered,
)

__all__ = ["TRUST_HELP", "TRUST_OPTION", "CommandLine", "is_answered"]
