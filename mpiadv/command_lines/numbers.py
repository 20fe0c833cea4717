"""Numbers on command lines, within bounds that the line of a refusal names; names out of a list."""

import argparse
import difflib
from collections.abc import Callable, Iterable


def whole(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number of an option."""

    def read(text: str) -> int:
        # str.isdigit takes ² for a digit, int does not; and int takes 1_0.
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise argparse.ArgumentTypeError(f"{text[:40]} is no whole number")
        if len(digits) > len(str(most)) or not least <= int(text) <= most:
            told = f"expected at least {least}, and at most {most:,}"
            raise argparse.ArgumentTypeError(f"{text[:40]}: {told}")
        return int(text)

    return read


def number(most: float, *, may_be_0: bool = False) -> Callable[[str], float]:
    """What reads a number above 0, or 0 too, of an option."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]} is no number") from None
        if not (0 < value <= most or (may_be_0 and value == 0)):
            least = "0 or more" if may_be_0 else "more than 0"
            raise argparse.ArgumentTypeError(f"{text[:40]}: expected {least}, and at most {most:,}")
        return value

    return read


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """What reads one of these names."""
    known = list(names)

    def read(text: str) -> str:
        if text not in known:
            (nearest,) = difflib.get_close_matches(text, known, n=1, cutoff=0.0)
            told = f"unknown {kind} {text[:40]!r}: did you mean {nearest!r}?"
            raise argparse.ArgumentTypeError(f"{told} Known: {', '.join(known)}")
        return text

    return read
