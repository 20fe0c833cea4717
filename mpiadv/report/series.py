"""Numbers computed from a log's rows: means, seconds by activity, rates. Knows no file, no figure.

NaN means "not measured" everywhere, and counts as no value.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpiadv.report.reading import Floats, Log
from mpiadv.runlog.rows import Rows

EXCHANGING = "exchanging"
"""Waiting for the other trainers, where there are any."""

TRAINER_ACTIVITIES = {
    "training": "train_seconds",
    "crafting": "own_craft_seconds",
    "waiting": "wait_seconds",
    "publishing": "publish_seconds",
    EXCHANGING: "exchange_seconds",
}
"""What the trainer does to its column in `/train`."""

OTHER = "other"
"""The rest of the trainer's time."""

ATTACKER_ACTIVITIES = {
    "crafting": "craft_seconds",
    "waiting for parameters on their way": "parameter_wait_seconds",
    "waiting for the trainer": "trainer_wait_seconds",
    "waiting for tickets": "grant_wait_seconds",
}
"""What an attacker does to its column in `/train`."""

COLOURS: Mapping[str, str] = {
    "training": "#1f77b4",
    "crafting": "#ef8e19",
    "waiting": "#c62828",
    "publishing": "#2e7d32",
    "exchanging": "#00838f",
    OTHER: "#b0bec5",
    "waiting for parameters on their way": "#8e6bbf",
    "waiting for the trainer": "#c62828",
    "waiting for tickets": "#f4a6a0",
}
"""Of activities; waiting is red wherever it can be helped."""

_RATE_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A column in blocks of `width` rows: means, float64 [blocks], and the blocks' middles."""

    width: int
    steps: Floats
    mean: Floats


def block_width(num_rows: int) -> int:
    """How many rows to average over, so that about a hundred points are left."""
    return max(1, min(5, num_rows // 10), num_rows // 100)


def in_blocks(steps: npt.ArrayLike, values: npt.ArrayLike, width: int | None = None) -> Blocks:
    """Means of `values` over blocks of rows; the last block may be shorter."""
    places, column = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    width = width or block_width(len(column))
    blocks = [slice(first, first + width) for first in range(0, len(column), width)]
    return Blocks(
        width=width,
        steps=np.array([places[block][[0, -1]].mean() for block in blocks]),
        mean=np.array([mean(column[block]) for block in blocks]),
    )


def mean(values: npt.ArrayLike) -> float:
    """The mean of what is finite; NaN if nothing is."""
    column = np.asarray(values, np.float64)
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else float("nan")


def row_seconds(log: Log) -> Floats:
    """Seconds from the end of the step before, or from the start or resume, to a step's end.

    float64 [rows]. The time between an interruption and the resume counts nowhere.
    """
    ends = log.column("wall_clock")
    if not len(ends):
        return ends
    begun = np.isin(log.events["kind"], [b"start", b"resume"])
    starts = np.sort(np.append(log.events["wall_clock"][begun], -np.inf))
    before = np.append(-np.inf, ends[:-1])
    begins = np.maximum(before, starts[np.searchsorted(starts, ends, side="right") - 1])
    # A clock that was set back gives no negative times, and a log without a start no endless one.
    return np.where(np.isfinite(begins), np.maximum(ends - begins, 0.0), 0.0)


def trainer_seconds(log: Log) -> dict[str, Floats]:
    """The trainer's seconds by activity, `OTHER` last: float64 [rows] each."""
    seconds = {
        name: _known(log.column(key))
        for name, key in TRAINER_ACTIVITIES.items()
        if name != EXCHANGING or np.nansum(log.column(key)) > 0
    }
    accounted = sum(seconds.values(), np.zeros(len(log.train)))
    return {**seconds, OTHER: np.maximum(row_seconds(log) - accounted, 0.0)}


def attacker_seconds(log: Log, last_rows: int | None = None) -> dict[int, dict[str, float]]:
    """Each attacker's seconds by activity, over the tickets that were trained on, by rank.

    Of the last so many steps alone, where `last_rows` says so.
    """
    rows = log.crafted
    if last_rows is not None and len(log.train):
        rows = rows[rows["step"] >= log.train["step"][-last_rows:][0]]
    ranks = rows["rank"]
    columns = {
        name: _known(np.asarray(rows[key], np.float64)) for name, key in ATTACKER_ACTIVITIES.items()
    }
    return {
        int(rank): {name: float(column[ranks == rank].sum()) for name, column in columns.items()}
        for rank in np.unique(ranks)
        if rank not in log.trainers
    }


def together(attackers: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Seconds by activity of all attackers."""
    each = attackers.values()
    return {name: sum(seconds[name] for seconds in each) for name in ATTACKER_ACTIVITIES}


def tickets_by_rank(log: Log) -> dict[int, int]:
    """How many of the batches that were trained on each rank crafted."""
    ranks, counts = np.unique(log.crafted["rank"], return_counts=True)
    return dict(zip(ranks.tolist(), counts.tolist(), strict=True))


def shares(seconds: Mapping[str, float] | Mapping[str, Floats]) -> dict[str, float]:
    """Seconds by activity, rows summed, as fractions of their sum; all 0 where the sum is 0."""
    sums = {name: float(np.sum(values)) for name, values in seconds.items()}
    total = sum(sums.values())
    return {name: value / total if total > 0 else 0.0 for name, value in sums.items()}


def recent_rate(log: Log) -> float:
    """Training steps per second over the newest rows since the last start; NaN if unknown."""
    since = log.resumes[-1] if log.resumes else 0
    seconds = row_seconds(log)[log.train["step"] > since][-_RATE_ROWS:]
    total = float(seconds.sum())
    return len(seconds) / total if total > 0 else float("nan")


def seconds_left(log: Log) -> float:
    """Seconds until the last training step at the recent rate; NaN if unknown."""
    if log.planned_steps is None:
        return float("nan")
    return (log.planned_steps - log.num_steps) / recent_rate(log)


def last_written(log: Log) -> float:
    """When the newest row was written, seconds since 1970; NaN if there is none."""
    times = np.append(log.column("wall_clock")[-1:], log.events["wall_clock"][-1:])
    return float(times.max()) if len(times) else float("nan")


def final_evaluation(log: Log) -> Rows:
    """The newest evaluation: a table of one row, or none."""
    return log.evaluation[-1:]


def attacked_again(log: Log) -> tuple[Rows, Rows]:
    """The rows of `/train` and of `/fresh` for the same batches, in the order of their steps."""
    steps = (log.train["step"], log.fresh["step"])
    _, trained, fresh = np.intersect1d(*steps, return_indices=True)
    return log.train[trained], log.fresh[fresh]


def _known(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, 0.0)
