"""Figures that set several runs side by side, a colour for each."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib import colormaps

from mpiadv.report.drawing import Picture, legend_below, over_steps, panels, stacked_bars
from mpiadv.report.reading import Log
from mpiadv.report.series import in_blocks, row_seconds, shares, trainer_seconds

_LEGEND_COLUMNS = 4


def compared_training(logs: Sequence[Log]) -> Picture | None:
    """Loss and adversarial accuracy of all runs over steps."""
    begun = [log for log in logs if len(log.train)]
    if not begun:
        return None
    figure, (loss, accuracy) = panels(height=4.0)
    for log, colour in _coloured(begun):
        for axis, column, scale in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            blocks = in_blocks(log.train["step"], scale * log.column(column))
            axis.plot(blocks.steps, blocks.mean, color=colour, label=log.label)
    over_steps(loss, "training loss (nats)", num_steps=_longest(logs))
    over_steps(accuracy, "adversarial accuracy, training (%)", num_steps=_longest(logs))
    legend_below(figure, loss, _LEGEND_COLUMNS)
    return Picture(
        name="compared-training",
        title="Training, side by side",
        figure=figure,
        caption="Training loss and accuracy on the attacked training batches, means over blocks of "
        "steps. Runs that differ in ranks alone lie on top of each other: they train the same "
        "model.",
    )


def compared_tests(logs: Sequence[Log]) -> Picture | None:
    """Natural and adversarial test accuracy of all runs over steps."""
    evaluated = [log for log in logs if len(log.evaluation)]
    if not evaluated:
        return None
    figure, axes = panels(height=4.0)
    for log, colour in _coloured(evaluated):
        for axis, kind in zip(axes, ("natural", "adversarial"), strict=True):
            axis.plot(
                log.evaluation["step"], 100 * log.evaluation[f"{kind}_accuracy"], color=colour,
                marker="o", ms=4, label=log.label,
            )  # fmt: skip
    for axis, kind in zip(axes, ("natural", "adversarial"), strict=True):
        over_steps(axis, f"{kind} test accuracy (%)", num_steps=_longest(logs))
    legend_below(figure, axes[0], _LEGEND_COLUMNS)
    return Picture(
        name="compared-tests",
        title="Test accuracy, side by side",
        figure=figure,
        caption="Accuracy on natural (left) and attacked (right) test images. The runs are "
        "comparable only where the summary shows the same attack; differences of a few points "
        "between single seeds mean little.",
    )


def compared_speed(logs: Sequence[Log]) -> Picture | None:
    """Steps done over time, and where the trainers' time went."""
    begun = [log for log in logs if len(log.train)]
    if not begun:
        return None
    figure, (progress, time) = panels(height=max(3.6, 1.6 + 0.3 * len(begun)))
    for log, colour in _coloured(begun):
        minutes = np.cumsum(row_seconds(log)) / 60
        progress.plot(minutes, log.train["step"] + 1, color=colour, label=log.label)
    progress.set_xlabel("minutes of running time")
    progress.set_ylabel("training steps done")
    progress.set_xlim(left=0)
    progress.set_ylim(bottom=0)
    progress.legend(loc="best")
    rows = {log.label: shares(trainer_seconds(log)) for log in begun}
    stacked_bars(time, rows)
    legend_below(figure, time, 5)
    return Picture(
        name="compared-speed",
        title="Speed, side by side",
        figure=figure,
        caption="Left: training steps over running time, pauses between interruption and resume "
        "left out; steeper is faster. Right: how each trainer spent its time.",
    )


def _coloured(logs: Sequence[Log]) -> list[tuple[Log, tuple[float, ...]]]:
    colours = cycle(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    return list(zip(logs, colours, strict=False))


def _longest(logs: Sequence[Log]) -> int:
    return max(log.num_steps for log in logs)
