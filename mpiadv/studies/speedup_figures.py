"""Figure and tables of speed-up, from rows of measurements. Knows no file, no torch and no MPI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mpiadv.forecast.job import ideal_speed_up
from mpiadv.report.drawing import ADVERSARIAL, NATURAL, Picture, legend_below, panels
from mpiadv.runlog.rows import Rows
from mpiadv.studies.results import Results, Table

PAPER: Mapping[int, str] = {1: "1", 2: "under 2", 8: "about 5"}
"""Ranks, GPUs there, to the speed-up of Bhat, Tsipras and Madry (2019), figure 9."""

PAPER_AT_8 = 5.0

NOISY = 0.1
"""Share of the machine's cores that others may take without a warning."""

LINES: Mapping[bool, tuple[str, str, str]] = {
    True: ("the trainer crafts, too", NATURAL, "o"),
    False: ("the trainer only trains", ADVERSARIAL, "s"),
}
"""Whether the trainer crafts, to label, colour and marker."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Measurements by number of ranks, against those of one rank, with or without crafting.

    Attributes:
        by_ranks: number of ranks to the rows of its repeats; one rank is in it.
        trainer_crafts: whether the trainer of several ranks does.
    """

    by_ranks: Mapping[int, Sequence[Rows]]
    trainer_crafts: bool

    def speed_ups(self, ranks: int) -> list[float]:
        """Of each repeat, over the median of one rank."""
        alone = median(float(row["ticket_seconds"]) for row in self.by_ranks[1])
        return [alone / float(row["ticket_seconds"]) for row in self.by_ranks[ranks]]

    def ideal(self, ranks: int) -> float:
        """The most that can be had, with the times of one rank."""
        train, craft = (
            median(float(row[f"{work}_seconds"]) for row in self.by_ranks[1])
            for work in ("train", "craft")
        )
        return ideal_speed_up(ranks, train, craft, trainer_crafts=self.trainer_crafts)

    def mean(self, ranks: int, column: str) -> float:
        """The mean of a column over the repeats."""
        return fmean(float(row[column]) for row in self.by_ranks[ranks])

    def worst(self, ranks: int, column: str) -> int:
        """The largest value of a column over the repeats."""
        return max(int(row[column]) for row in self.by_ranks[ranks])


def series_of(rows: Rows, *, trainer_crafts: bool) -> Series:
    """The measurements of one kind; one rank, whose trainer always crafts, is of both."""
    chosen = [row for row in rows if row["ranks"] == 1 or row["trainer_crafts"] == trainer_crafts]
    ranks = sorted({int(row["ranks"]) for row in chosen})
    return Series(
        by_ranks={n: [row for row in chosen if row["ranks"] == n] for n in ranks},
        trainer_crafts=trainer_crafts,
    )


def shown(rows: Rows, *, is_real: bool) -> Results:
    """All that the study shows of the measurements there are."""
    kinds = [series_of(rows, trainer_crafts=crafts) for crafts in LINES]
    title = f"Speed-up over one rank, {'real' if is_real else 'emulated'} (figure 9)"
    if not all(1 in series.by_ranks for series in kinds):
        return Results(
            title=title,
            introduction=[_INTRODUCTION, "One rank has not been measured yet: nothing to compare."],
            parts=[],
        )
    return Results(
        title=title,
        introduction=[_INTRODUCTION, _how(kinds[0], is_real), *_findings(kinds), *_noise(rows)],
        parts=[_picture(kinds), _speed_table(kinds), _time_table(kinds)],
    )


_INTRODUCTION = (
    "Rank 0 trains; the other ranks craft the adversarial batches that it trains on, and while "
    "they cannot feed it the trainer crafts, too. In the paper it only trains: two GPUs were less "
    "than twice as fast as one, because the trainer waits, and eight about five times; its authors "
    "suggest that the trainer craft as well. Both are measured here."
)


def _how(series: Series, is_real: bool) -> str:
    row = series.by_ranks[1][0]
    times = f"{_milliseconds(float(row['train_seconds']))} to train on a batch and "
    times += f"{_milliseconds(float(row['craft_seconds']))} to craft one"
    if is_real:
        return (
            f"Real work: each rank trains or crafts on one core of this machine; one rank takes "
            f"{times}. Medians over the repeats."
        )
    return (
        f"Emulated: in the place of accelerators stand waits of {times}; the loops, the messages, "
        "their sizes, and the log are those of training, and all ranks share this machine's cores. "
        "Medians over the repeats."
    )


def _findings(kinds: Sequence[Series]) -> list[str]:
    """What the measurements say at the fewest ranks above one and at the most."""
    crafting, waiting = kinds
    both = sorted((crafting.by_ranks.keys() & waiting.by_ranks.keys()) - {1})
    told = [
        f"{ranks} ranks are {median(crafting.speed_ups(ranks)):.2f} times as fast as one "
        f"(at best {crafting.ideal(ranks):.2f}); where the trainer only trains, "
        f"{median(waiting.speed_ups(ranks)):.2f} times (at best {waiting.ideal(ranks):.2f})."
        for ranks in sorted({both[0], both[-1]} if both else ())
    ]
    return [" ".join(told)] if told else []


def _noise(rows: Rows) -> list[str]:
    """A warning where other programs were at work on the cores."""
    known = [float(row["others"]) for row in rows if isfinite(row["others"])]
    if not known or fmean(known) < NOISY:
        return []
    return [
        f"Beside the ranks other programs took {100 * fmean(known):.0f} % of this machine's cores, "
        "so these figures mean little: measure again where nothing else runs."
    ]


def _picture(kinds: Sequence[Series]) -> Picture:
    figure, (speed, idle) = panels(height=4.4, widths=(1.35, 1.0))
    most = max(max(series.by_ranks) for series in kinds)
    for series in kinds:
        _add_speed(speed, series, most)
        _add_idle(idle, series)
    if most >= 8:
        speed.plot(
            8, PAPER_AT_8, color="#444444", marker="*", ms=13, linestyle="none",
            label="Bhat et al., 8 GPUs: about 5",
        )  # fmt: skip
    for axis in (speed, idle):
        axis.set_xlabel("ranks (1 trains, the others craft)")
        axis.set_xlim(0.7, most + 0.3)
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    speed.set_ylabel("speed-up over one rank")
    idle.set_ylabel("share of the trainer's time spent waiting (%)")
    idle.set_ylim(0, 100)
    legend_below(figure, speed, 3)
    return Picture(
        name="speedup",
        title="Speed-up by the number of ranks (figure 9)",
        figure=figure,
        caption="Left: how many times as fast as one rank; points: medians of the repeats, bars: "
        "the least and the most of them; dashed: the most that can be had, which ends where the "
        "trainer does nothing but train. Right: what part of its time the trainer waits for a "
        "batch. Where the lines of one colour lie on each other, waiting and messages cost "
        "nothing; the gap between the colours is what the trainer's own crafting buys.",
    )


def _add_speed(axis: Axes, series: Series, most: int) -> None:
    label, colour, marker = LINES[series.trainer_crafts]
    measured = {n: series.speed_ups(n) for n in series.by_ranks}
    middle = [median(values) for values in measured.values()]
    below = [median(values) - min(values) for values in measured.values()]
    above = [max(values) - median(values) for values in measured.values()]
    axis.errorbar(
        list(measured), middle, yerr=[below, above], color=colour, marker=marker, ms=5, capsize=3,
        label=label,
    )  # fmt: skip
    every = list(range(1, most + 1))
    axis.plot(
        every, [series.ideal(n) for n in every], color=colour, linestyle="--", linewidth=1.1,
        label=f"at best, if {label}",
    )  # fmt: skip


def _add_idle(axis: Axes, series: Series) -> None:
    label, colour, marker = LINES[series.trainer_crafts]
    idle = [100 * series.mean(n, "idle") for n in series.by_ranks]
    axis.plot(
        list(series.by_ranks), idle, color=colour, marker=marker, ms=5, label=label, clip_on=False
    )


def _speed_table(kinds: Sequence[Series]) -> Table:
    ranks = sorted({n for series in kinds for n in series.by_ranks})
    rows = [
        [str(n), *(cell for series in kinds for cell in _speed_cells(series, n)), PAPER.get(n, "-")]
        for n in ranks
    ]
    return Table(
        title="Speed-up",
        caption="Median of the repeats over the median of one rank, in brackets the least and the "
        "most; at best: the fewer of what all crafting ranks and what the trainer alone can do. "
        "Last column: the paper's GPUs, whose trainer only trained.",
        headings=[
            "ranks",
            "the trainer crafts, too", "at best",
            "the trainer only trains", "at best",
            "Bhat et al.",
        ],
        rows=rows,
    )  # fmt: skip


def _speed_cells(series: Series, ranks: int) -> list[str]:
    if ranks not in series.by_ranks:
        return ["-", f"{series.ideal(ranks):.2f}"]
    values = series.speed_ups(ranks)
    spread = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
    return [f"{median(values):.2f}{spread}", f"{series.ideal(ranks):.2f}"]


def _time_table(kinds: Sequence[Series]) -> Table:
    rows = [
        _time_row(series, ranks)
        for series in kinds
        for ranks in series.by_ranks
        if ranks > 1 or series.trainer_crafts
    ]
    return Table(
        title="Where the time goes, and how old the parameters are",
        caption="Means over the repeats. Staleness in training steps, mean over the tickets, in "
        "brackets the worst. Shares of the attackers' time are of all attackers together.",
        headings=[
            "ranks", "repeats", "ms per ticket", "trainer waits, %",
            "attackers wait for parameters, %", "for the trainer, %", "for tickets, %",
            "staleness, first attack step", "last",
        ],
        rows=rows,
    )  # fmt: skip


def _time_row(series: Series, ranks: int) -> list[str]:
    waits = "" if series.trainer_crafts else ", the trainer only trains"
    shares = [
        f"{100 * series.mean(ranks, name):.1f}"
        for name in ("idle", "parameter_wait", "trainer_wait", "grant_wait")
    ]
    staleness = [
        f"{series.mean(ranks, f'{end}_staleness'):.1f} "
        f"({series.worst(ranks, f'{end}_staleness_worst')})"
        for end in ("first", "last")
    ]
    seconds = median(float(row["ticket_seconds"]) for row in series.by_ranks[ranks])
    return [
        f"{ranks}{waits}",
        str(len(series.by_ranks[ranks])),
        f"{1000 * seconds:.1f}",
        *shares,
        *staleness,
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
