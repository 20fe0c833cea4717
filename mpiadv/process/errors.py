"""The errors a user meets. Knows nothing of the rest of the package."""

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PYTHON = Path(signal.__file__).parent
_INSTALLED = {"site-packages", "dist-packages"}
_LONGEST_SHOWN = 100


class UserError(Exception):
    """Bad input: one clear line saying what was wrong, what was expected and what to do.

    Entry points print the line once, without a traceback, and every rank exits with code 2.
    """


class SampleError(UserError):
    """Samples are not what they should be; once they are put right they have other fingerprints."""


class UnreadableError(RuntimeError):
    """Samples could not be read for a while, by no fault of theirs; the text says which."""


class DeadlineError(RuntimeError):
    """A wait took longer than its deadline; the text says for which rank and which ticket."""


class SilentRankError(DeadlineError):
    """An attacker does not answer, and the job cannot do without it."""


class TrainerLostError(RuntimeError):
    """The trainer is gone, without which no other rank can go on."""


class ColleagueLostError(DeadlineError):
    """Another trainer is gone, be it the lead, without which no step can be completed."""

    def __init__(self, text: str, *, is_lead: bool) -> None:
        super().__init__(text)
        self.is_lead = is_lead


class BrokenBitsError(RuntimeError):
    """Trainers hold different parameters; the text says where."""


class DismissedError(RuntimeError):
    """The trainer has given this rank up, because it did not answer."""


class NonFiniteLossError(RuntimeError):
    """The training loss is NaN or infinite; the text says at which step and ticket."""


class OverfittingError(RuntimeError):
    """Training images suddenly no longer withstand PGD; the text says what is there instead."""


class StorageError(RuntimeError):
    """What a run has to leave on disk could not be written; the text says what is there instead."""


def shown(value: object) -> str:
    """What was given, as it would stand in a program, on one line, cut where it would grow long."""
    text = printable(repr(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def abridged(names: Sequence[str], most: int = 5) -> str:
    """The first few of several names; dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


@contextmanager
def user_code(place: str) -> Iterator[None]:
    """Around a call of a user's code: however that ends but by returning, it is bad input.

    Raises:
        UserError: `place`, and what came up there; also in place of an end of the program. Ctrl-C,
            where nobody listens for it, goes through.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        is_asked = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if isinstance(error, KeyboardInterrupt) and is_asked:
            raise
        raise UserError(f"{place}: {origin_of(error)}") from error


def printable(text: str) -> str:
    """Text that leaves a terminal as it is: line feeds and escape sequences are spelt out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def tell_error(line: str) -> None:
    """Say the one line of what was wrong."""
    print(f"mpiadv: error: {printable(line)}", file=sys.stderr, flush=True)


def tell_warning(line: str) -> None:
    """Say what is out of the ordinary."""
    print(f"mpiadv: warning: {printable(line)}", file=sys.stderr, flush=True)


def origin_of(error: BaseException) -> str:
    """An exception in one line: its type, its first line, and where in the user's code it arose."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    files = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_foreign(Path(frame.filename))
    ]
    place = f" (at {files[-1][0].name}:{files[-1][1]})" if files else ""
    told = f"{type(error).__name__}: {first}{place}"
    return told if isinstance(error, Exception) else f"it ends the program with {told}"


def _is_foreign(file: Path) -> bool:
    """Whether a file is this package's or a library's, and tells nothing about the user's code."""
    is_pythons = _PYTHON in file.parents and not _INSTALLED & set(file.parts)
    is_ours = _PACKAGE in file.parents or file.name.startswith("<frozen")
    return is_ours or is_pythons or bool({"torch", "torchvision", "PIL"} & set(file.parts))
