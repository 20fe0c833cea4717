"""The errors a user meets. Knows nothing of the rest of the package."""

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parent
_LONGEST_SHOWN = 100


class UserError(Exception):
    """Bad input: one clear line saying what was wrong, what was expected and what to do.

    Entry points print the line once, without a traceback, and every rank exits with code 2.
    """


class DeadlineError(RuntimeError):
    """A wait took longer than its deadline; the text says for which rank and which ticket."""


class SilentRankError(DeadlineError):
    """An attacker does not answer, and the job cannot do without it."""


class TrainerLostError(RuntimeError):
    """The trainer is gone, without which no other rank can go on."""


class DismissedError(RuntimeError):
    """The trainer has given this rank up, because it did not answer."""


class NonFiniteLossError(RuntimeError):
    """The training loss is NaN or infinite; the text says at which step and ticket."""


class StorageError(RuntimeError):
    """What a run has to leave on disk could not be written; the text says what is there instead."""


def shown(value: object) -> str:
    """What was given, as it would stand in a program, cut where the line would grow too long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def origin_of(error: BaseException) -> str:
    """An exception in one line: its type, its first line, and where in the user's code it arose."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    files = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_foreign(Path(frame.filename))
    ]
    place = f" (at {files[-1][0].name}:{files[-1][1]})" if files else ""
    return f"{type(error).__name__}: {first}{place}"


def _is_foreign(file: Path) -> bool:
    """Whether a file is this package's or a library's, and tells nothing about the user's code."""
    return _PACKAGE in file.parents or bool({"torch", "torchvision", "PIL"} & set(file.parts))
