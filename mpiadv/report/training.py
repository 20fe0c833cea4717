"""Figures of what was learnt: loss, accuracy in training and on test images, gradients."""

from math import sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from mpiadv.report.drawing import ADVERSARIAL, NATURAL, Picture, over_steps, panels, raw_and_mean
from mpiadv.report.reading import Floats, Log, text
from mpiadv.report.series import block_width, mean
from mpiadv.runlog.rows import HELD_OUT, TRAIN, Rows
from mpiadv.storage.run_folder import EMA, RAW


def training(log: Log) -> Picture | None:
    """Loss, learning rate and accuracy of the training batches over steps."""
    if not len(log.train):
        return None
    figure, (loss, accuracy) = panels()
    steps, values = log.train["step"], log.column("loss")
    blocks = raw_and_mean(loss, steps, values, colour=ADVERSARIAL, label="training loss")
    _add_learning_rate(loss, steps, log.column("learning_rate"))
    _add_training_accuracy(accuracy, log)
    over_steps(loss, "training loss (nats)", num_steps=log.num_steps, resumes=log.resumes)
    _over_percent(accuracy, log)
    loss.set_ylim(bottom=0)  # after drawing: it ends the scaling
    accuracy.legend(loc="lower right")
    # One value is not a trend.
    fell = f", from {blocks.mean[0]:.3g} to {blocks.mean[-1]:.3g}" if len(blocks.mean) > 1 else ""
    return Picture(
        name="training",
        title="Loss and accuracy in training",
        figure=figure,
        caption=f"Left: the training loss of every step (light) and its mean over {blocks.width} "
        f"steps (dark){fell}, with the learning rate (dotted, right scale). Right: accuracy on the "
        "training batches, before and after the attack. The loss should fall smoothly; adversarial "
        "accuracy that leaps up while PGD accuracy on test images (next figure) falls means that "
        "the training attack has been fooled, by staleness or by masked gradients." + _marks(log),
    )


def tested(log: Log) -> Picture | None:
    """Natural and adversarial accuracy and loss on test images over steps."""
    if not len(log.evaluation):
        return None
    figure, (accuracy, loss) = panels()
    shown = {
        "": log.evaluation,
        ", averaged weights": log.evaluations_of(EMA),
        ", images held out": log.evaluations_of(RAW, HELD_OUT),
        ", training images": log.evaluations_of(RAW, TRAIN),
    }
    curves = [
        (which, attack, rows[rows["attack"] == attack])
        for which, rows in shown.items()
        for attack in dict.fromkeys(rows["attack"].tolist())
    ]
    for number, (which, attack, rows) in enumerate(curves):
        _add_tested(accuracy, rows, "accuracy", 100.0, number, text(attack) + which)
        _add_tested(loss, rows, "loss", 1.0, number, text(attack) + which)
    _over_percent(accuracy, log)
    over_steps(loss, "cross-entropy (nats)", num_steps=log.num_steps, resumes=log.resumes)
    accuracy.legend(loc="lower right")
    loss.set_ylim(bottom=0)
    last = log.evaluation[-1]
    return Picture(
        name="tested",
        title="Accuracy on test images",
        figure=figure,
        caption=f"Accuracy (left) and cross-entropy (right) on natural test images and under "
        f"attack. The last evaluation, after step {last['step']}, used {last['num_samples']} "
        f"images: {100 * last['natural_accuracy']:.2f} % natural, "
        f"{100 * last['adversarial_accuracy']:.2f} % under {text(last['attack'])}, with a standard "
        f"error of {_standard_error(last['adversarial_accuracy'], last['num_samples']):.2f} points "
        "from the choice of images." + _marks(log),
    )


def gradients(log: Log) -> Picture | None:
    """Gradient magnitude of the attacked batches over steps."""
    values = log.column("gradient_magnitude")
    if not np.isfinite(values).any():
        return None
    figure, (axis,) = panels(1, height=3.2)
    steps = log.train["step"]
    label = f"mean over {block_width(len(values))} steps"
    raw_and_mean(axis, steps, values, colour=NATURAL, label=label)
    axis.set_yscale("log")
    # Its own labels are written as formulas, which are drawn as they stand here.
    axis.yaxis.set_major_formatter(LogFormatter())
    axis.yaxis.set_minor_formatter(LogFormatter())
    over_steps(axis, "L1 norm per image", num_steps=log.num_steps, resumes=log.resumes)
    axis.legend(loc="upper right")
    return Picture(
        name="gradients",
        title="Gradient magnitude",
        figure=figure,
        caption="L1 norm, by the pixels, of the gradient of what the attack climbs, at its last "
        "step (with m_plus, while there is none, of the training loss), mean "
        f"over each batch (light; dark: {label}); {mean(values):.3g} on "
        "average. A sudden fall to almost nothing while adversarial training accuracy leaps up is "
        "a sign of masked gradients." + _marks(log),
    )


def _add_learning_rate(axis: Axes, steps: Floats, rates: Floats) -> None:
    if not np.isfinite(rates).any():
        return
    right = axis.twinx()
    right.plot(steps, rates, color="#777777", linestyle=":", linewidth=1.2)
    right.set_ylabel("learning rate (dotted)")
    right.set_ylim(bottom=0)
    right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    right.spines["right"].set_visible(True)
    right.grid(False)


def _add_training_accuracy(axis: Axes, log: Log) -> None:
    for column, label, colour in (
        ("natural_accuracy", "natural", NATURAL),
        ("accuracy", "adversarial", ADVERSARIAL),
    ):
        values = 100 * log.column(column)
        known = np.isfinite(values)
        if known.any():
            steps = log.train["step"][known]
            raw_and_mean(axis, steps, values[known], colour=colour, label=label)


def _add_tested(
    axis: Axes, rows: Rows, quantity: str, scale: float, number: int, attack: str
) -> None:
    line = ("-", "--", ":", "-.")[number % 4]
    if number == 0:
        natural = scale * rows[f"natural_{quantity}"]
        axis.plot(
            rows["step"], natural, color=NATURAL, marker="o", ms=4.5, label="natural", clip_on=False
        )
    axis.plot(
        rows["step"], scale * rows[f"adversarial_{quantity}"], color=ADVERSARIAL, linestyle=line,
        marker="s", ms=4.5, label=attack, clip_on=False,
    )  # fmt: skip


def _over_percent(axis: Axes, log: Log) -> None:
    over_steps(axis, "accuracy (%)", num_steps=log.num_steps, resumes=log.resumes)
    axis.set_ylim(0, 101)


def _standard_error(accuracy: float, num_samples: int) -> float:
    """Of an accuracy on so many images, in percentage points."""
    variance = max(0.0, accuracy * (1 - accuracy))
    return 100 * sqrt(variance / num_samples) if num_samples else float("nan")


def _marks(log: Log) -> str:
    return " Dashed vertical lines: the run was resumed there." if log.resumes else ""
