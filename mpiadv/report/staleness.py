"""Figures of staleness: how old the parameters behind each attack were, and what that hides."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mpiadv.report.drawing import (
    FIRST,
    FRESH,
    LAST,
    STALE,
    Picture,
    over_steps,
    panels,
    raw_and_mean,
)
from mpiadv.report.reading import Log
from mpiadv.report.series import attacked_again, block_width, in_blocks, mean

_ENDS = (
    ("first", "staleness.max_staleness", FIRST),
    ("last", "staleness.final_staleness", LAST),
)
"""An end of the attack, the setting that bounds its staleness, its colour."""


def staleness(log: Log) -> Picture | None:
    """Staleness at the first and last attack step: over steps, and as a histogram."""
    if not len(log.train):
        return None
    figure, (over, histogram) = panels(widths=(1.25, 1.0))
    for end, setting, colour in _ENDS:
        _add_over_steps(over, log, end, colour)
        _add_bound(over, histogram, log, end, setting, colour)
        _add_histogram(histogram, log, end, colour)
    over_steps(over, "staleness (steps)", num_steps=log.num_steps, resumes=log.resumes)
    over.set_ylim(bottom=0, top=1.12 * max(over.get_ylim()[1], 1.0))
    histogram.set_xlabel("staleness (training steps)")
    histogram.set_ylabel("share of the batches (%)")
    histogram.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    over.legend(loc="upper right", ncols=3)
    return Picture(
        name="staleness",
        title="Staleness",
        figure=figure,
        caption="How many training steps older than the batch's turn the attacked parameters were, "
        f"at the first attack step (mean {mean(log.column('first_staleness')):.2f}) and at the "
        f"last ({mean(log.column('last_staleness')):.2f}). Left: means over blocks of steps; "
        "right: over the whole run. Dotted lines are the bounds of the "
        f"configuration ({_bounds(log)}); nothing may lie beyond them, and what robustness "
        f"depends on is the last attack step.{_trainer_steps(log)}",
    )


def fresh(log: Log) -> Picture | None:
    """Accuracy and loss on batches as they were crafted, and on the same ones attacked anew."""
    trained, again = attacked_again(log)
    if not len(again):
        return None
    figure, (accuracy, loss) = panels()
    for axis, column, scale in ((accuracy, "accuracy", 100.0), (loss, "loss", 1.0)):
        for rows, colour, label in ((trained, STALE, "stale"), (again, FRESH, "fresh")):
            raw_and_mean(axis, rows["step"], scale * rows[column], colour=colour, label=label)
        axis.set_ylim(bottom=0)
    over_steps(accuracy, "accuracy (%)", num_steps=log.num_steps, resumes=log.resumes)
    over_steps(loss, "loss (nats)", num_steps=log.num_steps, resumes=log.resumes)
    accuracy.set_ylim(top=101)
    accuracy.legend(loc="lower right")
    loss.legend(loc="upper right")
    return Picture(
        name="fresh",
        title="Accuracy on stale and on fresh batches",
        figure=figure,
        caption=f"Accuracy (left) and loss (right) on the adversarial images of {len(again)} "
        "batches as they were crafted and trained on (stale), and of the same batches attacked "
        "again, all of the attack on the parameters of that training step (fresh): "
        f"{100 * mean(trained['accuracy']):.1f} % and {100 * mean(again['accuracy']):.1f} % on "
        f"average. Dark lines are means over {block_width(len(again))} of them. Where staleness is "
        "harmless the curves lie close together; stale accuracy that stays high while fresh "
        "accuracy falls means that the model withstands what its past selves were attacked with, "
        f"and nothing else (Bhat et al. 2019, Figure 5).{_natural_part(log)}",
    )


def _natural_part(log: Log) -> str:
    if not log.config.get("objective.clean_fraction"):
        return ""
    return " The losses do not compare: the stale one is also over the part that stays natural."


def _add_over_steps(axis: Axes, log: Log, end: str, colour: str) -> None:
    blocks = in_blocks(log.train["step"], log.column(f"{end}_staleness"))
    axis.plot(blocks.steps, blocks.mean, color=colour, linewidth=1.8, label=f"{end} attack step")


def _add_bound(over: Axes, histogram: Axes, log: Log, end: str, setting: str, colour: str) -> None:
    bound = log.config.get(setting)
    if isinstance(bound, int):
        over.axhline(bound, color=colour, linestyle=":", linewidth=1.4)
        histogram.axvline(bound + 0.5, color=colour, linestyle=":", linewidth=1.4)


def _add_histogram(axis: Axes, log: Log, end: str, colour: str) -> None:
    values, counts = np.unique(log.train[f"{end}_staleness"], return_counts=True)
    axis.bar(values, 100 * counts / counts.sum(), width=0.9, color=colour, alpha=0.75)


def _bounds(log: Log) -> str:
    return ", ".join(
        f"{setting.removeprefix('staleness.')} {log.config.get(setting, 'unknown')}"
        for _, setting, _ in _ENDS
    )


def _trainer_steps(log: Log) -> str:
    count = log.config.get("staleness.trainer_steps", 0)
    if not count:
        return ""
    if count >= max(log.train["attack_steps"]):
        return " Here the trainer itself ran all attack steps, on its current parameters."
    return f" After it the trainer itself ran {count} more, on its current parameters."
