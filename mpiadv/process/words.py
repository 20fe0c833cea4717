"""Numbers and tables as people read them."""

from collections.abc import Sequence
from math import isfinite

UNKNOWN = "-"


def counted(number: int, what: str) -> str:
    """`1 rank`, `1,024 ranks`, `2 classes`, `3 batches`."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith(('s', 'ch')) else 's'}"


def shape_text(shape: Sequence[int]) -> str:
    """`(3, 32, 32)` as `3x32x32`."""
    return "x".join(map(str, shape))


def aligned(rows: Sequence[Sequence[str]], *, num_names: int = 0) -> list[str]:
    """A table line by line: names, which come first, to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < num_names else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent(fraction: float) -> str:
    """A share as `12.3 %`."""
    return f"{100 * fraction:.1f} %" if isfinite(fraction) else UNKNOWN


def duration(seconds: float) -> str:
    """Seconds as minutes, and hours and days where there are any: 4:05, 1:04:05, 2 d 1:04:05."""
    if not isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {clock}" if days else clock
