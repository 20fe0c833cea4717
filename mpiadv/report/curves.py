"""Numbers as characters: sparklines and bars. Knows no log and no terminal."""

from collections.abc import Mapping
from math import isfinite

import numpy as np
import numpy.typing as npt

from mpiadv.report.series import mean

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.:-=+*#"
"""For terminals without UTF-8."""


def sparkline(
    values: npt.ArrayLike,
    width: int,
    *,
    low: float | None = None,
    high: float | None = None,
    levels: str = LEVELS,
) -> str:
    """Values as at most `width` characters, each the mean of its share; blank where all are NaN.

    `low` and `high` are the ends of the scale; None: those of the values.
    """
    means = shrunk(np.asarray(values, np.float64), width)
    known = means[np.isfinite(means)]
    if not len(known):
        return ""
    low = float(known.min()) if low is None else low
    high = float(known.max()) if high is None else high
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(
        levels[round(min(max(value - low, 0.0), max(high - low, 0.0)) * scale)]
        if isfinite(value)
        else " "
        for value in means
    )


def shrunk(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """At most `width` means over equal shares of the values, NaN left out: float64 [<= width]."""
    parts = np.array_split(values, min(width, len(values))) if len(values) else []
    return np.array([mean(part) for part in parts], np.float64)


def segments(shares: Mapping[str, float], width: int) -> dict[str, int]:
    """Fractions that sum to 1 as numbers of characters that sum to `width`; all 0 as 0."""
    ends = np.cumsum(list(shares.values()))
    if not len(ends) or ends[-1] <= 0:
        return dict.fromkeys(shares, 0)
    cells = np.diff(np.round(width * ends / ends[-1]), prepend=0)
    return {name: int(count) for name, count in zip(shares, cells, strict=True)}


def counts_up_to(values: npt.NDArray[np.int64], largest: int) -> npt.NDArray[np.float64]:
    """How often each of 0, 1, ..., `largest` occurs in `values`: float64 [largest + 1]."""
    within = values[(values >= 0) & (values <= largest)]
    return np.bincount(within, minlength=largest + 1).astype(np.float64)
