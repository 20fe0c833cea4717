"""How perturbations of the same images come back to themselves over training. Knows no file.

Too much staleness makes attacks and network chase each other: the perturbations of an image move
through it and return (Bhat, Tsipras and Madry 2019, figure 6). With d_i(t) the perturbation of
image i against the parameters after t training steps, the autocorrelation is

    C(lag) = mean over i and t of  <d_i(t), d_i(t + lag)> / (|d_i(t)| |d_i(t + lag)|)

1 for perturbations that stay, 0 for unrelated ones, below 0 for opposite ones. Where perturbations
cycle, C falls to a minimum half a cycle later and rises again to a maximum after a whole one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PROMINENCE = 0.03
"""How far C must rise above a minimum, and fall below a maximum, not to count as noise."""


@dataclass(frozen=True, kw_only=True)
class Autocorrelation:
    """C over lags, up to half of the time between the first snapshot and the last.

    Attributes:
        lags: int64 [L], training steps, from 0 on.
        similarity: float64 [L], mean cosine similarity, -1 to 1.
    """

    lags: npt.NDArray[np.int64]
    similarity: Floats


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """The first minimum of C and the maximum that follows it, which is one cycle later.

    `period` and `returning` are None where C has not come to a maximum within the lags seen.

    Attributes:
        half: lag of the minimum, training steps.
        lowest: C there.
        period: lag of the maximum, training steps.
        returning: C there.
    """

    half: int
    lowest: float
    period: int | None
    returning: float | None


def autocorrelation(steps: npt.ArrayLike, perturbations: npt.NDArray[Any]) -> Autocorrelation:
    """C of perturbations [T >= 1, N, ...] taken after `steps` [T], at the lags that occur.

    Lags that occur in a part of the run alone are left out: where a resumed run took its snapshots
    at other distances, C would tell of one part here and of another there. Perturbations that are
    zero or not finite have no direction, and count nowhere.
    """
    times = np.asarray(steps, np.int64)
    distance = times[None, :] - times[:, None]
    within = (distance >= 0) & (2 * distance <= distance.max())
    lags, place = np.unique(distance[within], return_inverse=True)
    sums, counts = np.zeros(len(lags)), np.zeros(len(lags), np.int64)
    for image in range(perturbations.shape[1]):  # one at a time: this is [T, T]
        similarities = _similarities(perturbations[:, image])[within]
        known = np.isfinite(similarities)
        sums += np.bincount(place[known], similarities[known], minlength=len(lags))
        counts += np.bincount(place[known], minlength=len(lags))
    # Of snapshots at equal distances at least half have another one behind them at each lag.
    is_common = 2 * np.bincount(place) >= len(times) - 1
    seen = (counts > 0) & is_common
    return Autocorrelation(lags=lags[seen], similarity=sums[seen] / counts[seen])


def find_cycle(found: Autocorrelation) -> Cycle | None:
    """The first minimum of C and the following maximum; None where C never rises again.

    Ups and downs of less than `PROMINENCE` are noise.
    """
    low = _first_turn(found.similarity)
    if low is None:
        return None
    rest = found.similarity[low:]
    high = _first_turn(-rest)
    return Cycle(
        half=int(found.lags[low]),
        lowest=float(found.similarity[low]),
        period=None if high is None else int(found.lags[low + high]),
        returning=None if high is None else float(rest[high]),
    )


def _similarities(perturbations: npt.NDArray[Any]) -> Floats:
    """Cosines between perturbations [T, ...] of one image: float64 [T, T], NaN where undefined."""
    flat = np.asarray(perturbations, np.float64).reshape(len(perturbations), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    directions = np.where(usable, flat, np.nan) / np.where(usable, lengths, 1.0)
    return np.asarray(directions @ directions.T, np.float64)


def _first_turn(values: Floats) -> int | None:
    """Index of the first minimum after which `values` rise by `PROMINENCE`."""
    lowest = np.minimum.accumulate(values)
    risen = np.flatnonzero(values - lowest >= PROMINENCE)
    return int(np.argmin(values[: risen[0]])) if len(risen) else None
