"""The command line of `mpiadv launch`: a number of ranks, and what they are to do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mpiadv.command_lines import evaluate, train
from mpiadv.command_lines.commands import COMMANDS, require_no_misspelt
from mpiadv.command_lines.described import is_answered
from mpiadv.process.errors import UserError

HELP = """\
usage: mpiadv launch -n RANKS [--fault-tolerant] [CONFIG] [key.subkey=value ...] [--resume]
       mpiadv launch -n RANKS evaluate CHECKPOINT ...

Starts ranks on this machine, or on those of the cluster's allocation: rank 0 trains, the others
craft attacks; in an evaluation they share the images. It finds mpirun, and tells it what it needs
to know. Ctrl-C asks the ranks for a checkpoint, and to end; a second one ends them at once.

  -n RANKS            how many, the trainer included; it comes first
  --fault-tolerant    go on without attackers that are lost
  CONFIG ...          what to train, as after mpiadv: see mpiadv --help
  evaluate ...        what to attack: see mpiadv evaluate --help

exit codes: 0 finished, 1 failed, 2 bad input, 75 interrupted: --resume goes on
"""

_EXAMPLE = "mpiadv launch -n 4 CONFIG"
_MOST_DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be launched: `words` for each of so many `ranks`."""

    ranks: int
    words: tuple[str, ...]
    is_fault_tolerant: bool


def read(arguments: Sequence[str]) -> Launch | None:
    """What follows `mpiadv launch`, checked; None where it asked for help, which is printed then.

    Raises:
        UserError: no number of ranks comes first, or the rest is nothing that ranks can do.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return None
    if len(arguments) < 2 or arguments[0] != "-n":
        raise UserError(f"launch: expected the number of ranks first: {_EXAMPLE}")
    ranks = _ranks(arguments[1])
    words = [word for word in arguments[2:] if word != "--fault-tolerant"]
    if _is_help(words, ranks):
        return None
    return Launch(
        ranks=ranks, words=tuple(words), is_fault_tolerant="--fault-tolerant" in arguments
    )


def _ranks(text: str) -> int:
    if not re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text) or int(text) < 1:
        raise UserError(f"launch: -n {text}: expected a number of ranks, 1 or more: {_EXAMPLE}")
    return int(text)


def _is_help(words: list[str], ranks: int) -> bool:
    """Check the words that each rank is to get; whether they only asked for help."""
    if words[:1] == ["emulate"]:
        return False
    if words[:1] == ["evaluate"]:
        return is_answered(evaluate.parser(), words[1:])
    if words and words[0] in COMMANDS:
        raise UserError(
            f"launch: {words[0]} is no work for several ranks: say mpiadv {words[0]} by itself; "
            "ranks train, or evaluate"
        )
    require_no_misspelt(words, f"mpiadv launch -n {ranks}")
    if not {"-h", "--help"}.isdisjoint(words):
        print(HELP, end="")
        return True
    return is_answered(train.parser(), words)
