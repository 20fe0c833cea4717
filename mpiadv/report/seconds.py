"""Figures of time: what the trainer did, who crafted, and whom the attackers waited for."""

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mpiadv.report.drawing import Picture, legend_below, over_steps, panels, stacked_bars
from mpiadv.report.reading import Log
from mpiadv.report.series import (
    COLOURS,
    attacker_seconds,
    in_blocks,
    shares,
    tickets_by_rank,
    together,
    trainer_seconds,
)


def trainer_time(log: Log) -> Picture | None:
    """Where the trainer's time went: per step over the run, and in all."""
    if not len(log.train):
        return None
    figure, (over, whole) = panels(widths=(1.6, 1.0))
    seconds = trainer_seconds(log)
    steps = log.train["step"]
    blocks = {name: in_blocks(steps, 1e3 * values) for name, values in seconds.items()}
    over.stackplot(
        next(iter(blocks.values())).steps,
        [np.nan_to_num(block.mean) for block in blocks.values()],
        colors=[COLOURS[name] for name in blocks],
        labels=list(blocks),
        linewidth=0,
    )
    over_steps(over, "milliseconds per step", num_steps=log.num_steps, resumes=log.resumes)
    parts, several = shares(seconds), len(log.trainers)
    whose = "The trainer" if several == 1 else f"Rank 0, one of {several} trainers,"
    stacked_bars(whole, {"trainer": parts})
    legend_below(figure, over, 6)
    return Picture(
        name="trainer-time",
        title="Where the trainer's time went",
        figure=figure,
        caption=f"{whose} spent {_percents(parts)}. Left: per training step, over the run; "
        "right: in all. Waiting (red) is what more attackers, or more staleness, can take away; "
        "crafting (orange) is what more attackers take over from it. Other (grey) is mostly "
        "evaluating and saving.",
    )


def crafting(log: Log) -> Picture | None:
    """Tickets per rank, and how each attacker spent its time."""
    if not len(log.train):
        return None
    tickets, attackers = tickets_by_rank(log), attacker_seconds(log)
    height = min(9.0, 3.2 + 0.2 * max(0, len(attackers) - 8))
    figure, axes = panels(2 if attackers else 1, height=height)
    _add_tickets(axes[0], tickets, log.trainers)
    if attackers:
        rows = {f"rank {rank}": shares(seconds) for rank, seconds in attackers.items()}
        stacked_bars(axes[1], rows)
        legend_below(figure, axes[1], 4)
    return Picture(
        name="crafting",
        title="Who crafted, and whom the attackers waited for",
        figure=figure,
        caption=_crafting_caption(log, tickets, attackers),
    )


def _add_tickets(axis: Axes, tickets: Mapping[int, int], trainers: Collection[int]) -> None:
    colours = [COLOURS["training" if rank in trainers else "crafting"] for rank in tickets]
    bars = axis.bar(list(tickets), list(tickets.values()), color=colours, width=0.7)
    if len(tickets) <= 12:
        axis.bar_label(bars, fontsize=9)
    whose = ", ".join(map(str, sorted(trainers)))
    axis.set_xlabel(f"rank ({whose} {'is the trainer' if len(trainers) == 1 else 'train'})")
    axis.set_ylabel("batches crafted")
    axis.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.grid(False, axis="x")
    axis.set_xlim(-0.6, max(tickets) + 0.6)


def _crafting_caption(
    log: Log, tickets: dict[int, int], attackers: dict[int, dict[str, float]]
) -> str:
    own = 100 * sum(tickets.get(rank, 0) for rank in log.trainers) / sum(tickets.values())
    whom = "the trainer" if len(log.trainers) == 1 else "trainers"
    told = f"batches that were trained on, by the rank that crafted them: {own:.0f} % by {whom}."
    if not attackers:
        return f"{told.capitalize()} There were no attackers."
    uses = _percents(shares(together(attackers)))
    return (
        f"Left: {told} Right: each attacker's time, together {uses}. Waiting for "
        "the trainer (red) means that parameters fresh enough were not trained yet: a larger "
        "staleness would let them go on; waiting for tickets (pale) that the window, the tickets "
        "of max_staleness + 1 steps, or staleness.outstanding, is too small for so many attackers. "
        "Counted over the batches that were trained on."
    )


def _percents(parts: dict[str, float]) -> str:
    return ", ".join(f"{100 * share:.1f} % {name}" for name, share in parts.items())
