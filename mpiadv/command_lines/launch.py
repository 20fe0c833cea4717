"""The command line of `mpiadv launch`: a number of ranks, and what they are to do."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mpiadv.command_lines import evaluate
from mpiadv.command_lines.commands import COMMANDS, require_no_misspelt
from mpiadv.command_lines.described import EXIT_CODES, Described, flag, nearest_option, value, words
from mpiadv.command_lines.tables import TRAIN
from mpiadv.process.errors import UserError

LAUNCH = Described(
    name="launch",
    example="launch -n 8 CONFIG",
    summary="train on 8 ranks of this machine, or of this allocation",
    usage="mpiadv launch -n RANKS [--trainers N] [--fault-tolerant] [CONFIG] "
    "[key.subkey=value ...] [--resume]\n"
    "       mpiadv launch -n RANKS evaluate CHECKPOINT ...",
    about="Start ranks on this machine, or on those of the cluster's allocation: rank 0 trains, "
    "the others craft attacks; in an evaluation they share the images. It finds mpirun, and tells "
    "it what it needs to know. Ctrl-C asks the ranks for a checkpoint, and to end; a second one "
    "ends them at once.",
    epilog=EXIT_CODES,
    words={
        "words": words(
            argparse.REMAINDER,
            "CONFIG ... | evaluate ...",
            "what to train, as after mpiadv, or to attack, as after mpiadv evaluate: see their "
            "--help",
        )
    },
    options={
        "-n": value("RANKS", "how many, the trainer included; it comes first"),
        "--trainers": value(
            "N", "how many of them train, sharing out the tickets of each step; 1 without it"
        ),
        "--fault-tolerant": flag("go on without attackers that are lost"),
    },
)

_EXAMPLE = "mpiadv launch -n 4 CONFIG"
_MOST_DIGITS = 9
_HELP = {"-h", "--help"}


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
    if _HELP & {*arguments[:1]}:
        LAUNCH.read(["--help"])
        return None
    if len(arguments) < 2 or arguments[0] != "-n":
        raise UserError(f"launch: expected the number of ranks first: {_EXAMPLE}")
    ranks = _ranks(arguments[1])
    work = [word for word in arguments[2:] if word != "--fault-tolerant"]
    work = _with_trainers(work, ranks)
    if _read_work(work, ranks) is None:
        return None
    return Launch(ranks=ranks, words=tuple(work), is_fault_tolerant="--fault-tolerant" in arguments)


def _ranks(text: str) -> int:
    if not re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text) or int(text) < 1:
        raise UserError(f"launch: -n {text}: expected a number of ranks, 1 or more: {_EXAMPLE}")
    return int(text)


def _with_trainers(work: list[str], ranks: int) -> list[str]:
    """The same with the setting in the place of the option for it."""
    words, trainers = list[str](), list[str]()
    for before, word in zip(["", *work], work, strict=False):
        if before == "--trainers" or word.startswith("--trainers="):
            trainers.append(word.removeprefix("--trainers="))
        elif word != "--trainers":
            words.append(word)
    if not trainers and "--trainers" not in work:
        return words
    if words[:1] == ["evaluate"]:
        raise UserError(
            "launch: --trainers is for training: leave it out, evaluations share images"
        )
    given = f"--trainers {' '.join(trainers)}".rstrip()
    if len(trainers) != 1 or not re.fullmatch(r"[0-9]+", trainers[0]):
        raise UserError(
            f"launch: {given}: expected one number of ranks that train, as in mpiadv launch -n "
            f"{ranks} --trainers 2 CONFIG"
        )
    return [*words, f"training.trainers={trainers[0]}"]


def _read_work(work: list[str], ranks: int) -> object | None:
    """Check the words that each rank is to get; None where they only asked for help."""
    if work[:1] == ["emulate"]:
        return work
    if work[:1] == ["evaluate"]:
        return evaluate.read(work[1:])
    if work and work[0] in COMMANDS:
        raise UserError(
            f"launch: {work[0]} is no work for several ranks: say mpiadv {work[0]} by itself; "
            "ranks train, or evaluate"
        )
    require_no_misspelt(work, f"mpiadv launch -n {ranks}")
    _require_options(work)
    return LAUNCH.read(["--help"]) if _HELP & {*work} else TRAIN.read(work)


def _require_options(work: Sequence[str]) -> None:
    """Refuse an option that was meant as one of those that are taken out of `work` before."""
    for option in (word.partition("=")[0] for word in work if word.startswith("--")):
        meant = "" if option in TRAIN.options else nearest_option(option, LAUNCH.options)
        if meant:
            raise UserError(
                f"launch: no option {option}: did you mean {meant}? See mpiadv launch --help"
            )
