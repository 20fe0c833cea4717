"""Attack power: networks trained with k attack steps, attacked with k' (Bhat et al., figures 3, 4).

Draws from the scores alone: knows no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpiadv.report.drawing import ADVERSARIAL, NATURAL, Picture, legend_below, panels
from mpiadv.report.reading import text
from mpiadv.runlog.rows import Rows
from mpiadv.settings.pixels import RELATIVE_STEP_SIZE
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.results import Results, Table, percent
from mpiadv.studies.runs import Request, Run
from mpiadv.studies.scores import Scoring

SPLITS = {"test": "test", "train": "training"}
"""Which images, and what to call them."""

_LOG_SCALE_FROM = 20.0
"""Largest loss over the smallest, from where on a linear scale hides the small ones."""

CLEARLY = 0.05
"""A difference of accuracies that says something: 5 points."""

BEYOND_CHANCE = ", and by more than chance explains: on 100 images 14 points"

_CHANCE = 1.96 / sqrt(2)
"""Divided by the root of the number of images: as far are two accuracies apart by chance, 19 times
of 20 at most, were they of different images."""

_ROUNDING = 1e-9


def run_with(num_steps: int) -> Run:
    """The synchronous run that trains with so many attack steps."""
    return Run(name=f"k{num_steps}", overrides={"attack.num_steps": num_steps})


def runs(request: Request) -> list[Run]:
    """A run for each number of attack steps in training."""
    return [run_with(num_steps) for num_steps in request.ranges["training_steps"]]


def score(folder: StudyFolder) -> list[Scoring]:
    """Each network under each attack made on itself, on test and on training images."""
    return [
        Scoring(
            source=run.name,
            targets=(run.name,),
            split=split,
            attack_steps=num_steps,
            num_images=folder.ranges["num_images"],
        )
        for run in folder.runs
        for num_steps in folder.ranges["attack_steps"]
        for split in SPLITS
    ]


Curves = Mapping[int, Mapping[int, Rows]]
"""Attack steps in training, to attack steps, to the row of scores."""


def white_box(folder: StudyFolder, split: str) -> dict[int, dict[int, Rows]]:
    """Scores of networks under attacks made on themselves, as far as there are any."""
    trained = {run.name: run.overrides["attack.num_steps"] for run in folder.runs}
    curves: dict[int, dict[int, Rows]] = {}
    for row in folder.scores():
        if text(row["split"]) == split and row["target"] == row["source"]:
            curves.setdefault(trained[text(row["target"])], {})[int(row["attack_steps"])] = row
    return {k: dict(sorted(curves[k].items())) for k in sorted(curves)}


def is_shattered(trained: int, curve: Mapping[int, Rows]) -> bool:
    """Whether a network stands its own training attack clearly better than some other attack."""
    own = curve.get(trained)
    if own is None:
        return False
    return any(is_clearly_above(own, other) for other in curve.values())


def is_clearly_above(one: Rows, other: Rows) -> bool:
    """Whether an adversarial accuracy is above another by `CLEARLY`, and by more than chance."""
    num_images = min(int(row["num_images"]) for row in (one, other))
    difference = float(one["adversarial_accuracy"]) - float(other["adversarial_accuracy"])
    return difference > max(CLEARLY, _CHANCE / sqrt(num_images)) + _ROUNDING


def show(folder: StudyFolder) -> Results:
    """Figures 3 and 4, and the tables behind them."""
    curves = {split: white_box(folder, split) for split in SPLITS}
    parts: list[Table | Picture] = []
    if any(curves.values()):
        parts += [_accuracy_picture(curves), _loss_picture(curves)]
        parts += [_table(split, curves[split]) for split in SPLITS if curves[split]]
    if curves["test"]:
        parts.insert(0, _over_training(curves["test"]))
    return Results(
        title="Attack power: networks trained with k steps, attacked with every k",
        introduction=[_INTRODUCTION, *_findings(curves["test"])],
        parts=parts,
    )


POWER = Study(
    runs=runs,
    score=score,
    show=show,
)

_INTRODUCTION = (
    "Each network is trained with its own number k of attack steps, synchronously, and then "
    "attacked by PGD with every k, from a random start, with steps of "
    f"{RELATIVE_STEP_SIZE:g} epsilon / k. A network "
    "with shattered gradients stands the attack that it was trained with, and falls to others: its "
    "gradients mislead, they do not protect. In the paper networks trained with k <= 4 are "
    "shattered, close to 100 % under their own attack and broken by others, while k >= 8 gives "
    "robust ones: 98 % natural accuracy, 89 to 91 % under attack."
)

_RULE = (
    "A network counts as shattered where its accuracy under its own training attack is more than "
    f"{100 * CLEARLY:g} points above that under some other attack here{BEYOND_CHANCE}."
)


def _findings(curves: Curves) -> list[str]:
    """What is to be seen in the test images' scores, in words."""
    judged = [trained for trained, curve in curves.items() if trained in curve]
    if not judged:
        return ["No network has been scored yet."]
    shattered = [trained for trained in judged if is_shattered(trained, curves[trained])]
    sound = [trained for trained in judged if trained not in shattered]
    told = [
        f"{what}: k = {', '.join(map(str, which))}."
        for what, which in (("Shattered here", shattered), ("Not shattered here", sound))
        if which
    ]
    return [" ".join([*told, _RULE])]


def _over_training(curves: Curves) -> Picture:
    """Natural accuracy, that under the own attack, and the worst, over the training attack."""
    figure, (axis,) = panels(1, height=3.4)
    trained = list(curves)
    natural = [_percent(next(iter(curve.values())), "natural") for curve in curves.values()]
    own = [_percent(curve[k]) if k in curve else np.nan for k, curve in curves.items()]
    worst = [min(map(_percent, curve.values())) for curve in curves.values()]
    axis.plot(trained, natural, color=NATURAL, marker="o", label="natural", clip_on=False)
    axis.plot(
        trained, own, color=ADVERSARIAL, linestyle="--", marker="s", clip_on=False,
        label="under its own training attack",
    )  # fmt: skip
    axis.plot(
        trained, worst, color=ADVERSARIAL, marker="s", clip_on=False,
        label="under the worst of all attacks",
    )  # fmt: skip
    axis.fill_between(trained, worst, own, color=ADVERSARIAL, alpha=0.15, linewidth=0)
    _over_steps(axis, trained, "attack steps k in training")
    axis.set_ylim(-2, 102)
    axis.set_ylabel("test accuracy (%)")
    axis.legend(loc="lower right")
    return Picture(
        name="power-training",
        title="What the number of attack steps in training buys",
        figure=figure,
        caption="Accuracy of each network on natural test images, under the attack that it was "
        "trained with, and under the worst attack of this study. Where the two red lines part by "
        "much (shaded), the network has learnt to mislead its own attack: shattered gradients.",
    )


def _accuracy_picture(curves: Mapping[str, Curves]) -> Picture:
    figure, axes = panels(height=4.4)
    for axis, (split, by_training) in zip(axes, curves.items(), strict=True):
        _draw(axis, by_training, _percent)
        axis.set_ylim(-2, 102)
        axis.set_ylabel(f"accuracy on attacked {SPLITS[split]} images (%)")
    _legend(figure, axes)
    return Picture(
        name="power-accuracy",
        title="Accuracy under attacks of every number of steps (figures 3, 4)",
        figure=figure,
        caption="A line per network, by the attack steps k that it was trained with; a ring marks "
        "its own training attack. Left: test images, right: training images. Lines of robust "
        "networks are high and flat; a shattered network's line peaks at its ring and falls off "
        "elsewhere.",
    )


def _loss_picture(curves: Mapping[str, Curves]) -> Picture:
    figure, axes = panels(height=4.4)
    for axis, (split, by_training) in zip(axes, curves.items(), strict=True):
        _draw(axis, by_training, _loss)
        axis.set_ylabel(f"loss on attacked {SPLITS[split]} images (nats)")
    losses = [_loss(row) for each in curves.values() for curve in each.values() for row in
              curve.values()]  # fmt: skip
    scale = _same_scale(axes, losses)
    _legend(figure, axes)
    return Picture(
        name="power-loss",
        title="Loss under attacks of every number of steps (figures 3, 4)",
        figure=figure,
        caption=f"Mean cross-entropy, on a {scale} scale, of the same networks under the same "
        "attacks. For a robust network more attack steps find hardly more loss; for a shattered "
        "one attacks other than its own find much more.",
    )


def _same_scale(axes: Sequence[Axes], losses: Sequence[float]) -> str:
    """One ordinate for all panels: linear where that shows the small ones too; what it is."""
    positive = [loss for loss in losses if loss > 0 and np.isfinite(loss)]
    is_linear = not positive or max(positive) < _LOG_SCALE_FROM * min(positive)
    for axis in axes:
        if not is_linear:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_ylim(min(positive) / 1.5, max(positive) * 1.5)
        elif positive:
            axis.set_ylim(0, 1.08 * max(positive))
    return "linear" if is_linear else "logarithmic"


def _draw(axis: Axes, curves: Curves, value: Callable[[Rows], float]) -> None:
    colours = colormaps["viridis"](np.linspace(0, 0.92, max(2, len(curves))))
    for (trained, curve), colour in zip(curves.items(), colours, strict=False):
        axis.plot(
            list(curve), [value(row) for row in curve.values()], color=colour, marker="o", ms=4,
            label=f"trained with k = {trained}", clip_on=False,
        )  # fmt: skip
        if trained in curve:
            axis.plot(
                trained, value(curve[trained]), color=colour, marker="o", ms=11,
                markerfacecolor="none", markeredgewidth=1.8, clip_on=False,
            )  # fmt: skip
    steps = sorted({k for curve in curves.values() for k in curve})
    _over_steps(axis, steps, "steps k of the attack")


def _over_steps(axis: Axes, steps: Sequence[int], label: str) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [str(k) for k in steps])
    axis.minorticks_off()
    axis.set_xlabel(label)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend, of the panel that shows most networks."""
    fullest = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[0]))
    legend_below(figure, fullest, 4)


def _table(split: str, curves: Curves) -> Table:
    steps = sorted({k for curve in curves.values() for k in curve})
    count = max(int(row["num_images"]) for curve in curves.values() for row in curve.values())
    rows = [
        [
            f"k = {trained}",
            _natural(curve),
            *(_cell(curve.get(k), is_own=k == trained) for k in steps),
            "shattered" if is_shattered(trained, curve) else "",
        ]
        for trained, curve in curves.items()
    ]
    return Table(
        title=f"Accuracy by training and attack, {SPLITS[split]} images",
        caption=f"Percent of {count} {SPLITS[split]} images; rows: the attack steps in "
        "training, columns: those of the attack; in brackets: the network's own training attack. "
        f"{_RULE}",
        headings=["trained with", "natural", *(f"PGD-{k}" for k in steps), "gradients"],
        rows=rows,
    )


def _natural(curve: Mapping[int, Rows]) -> str:
    return percent(float(next(iter(curve.values()))["natural_accuracy"]))


def _cell(row: Rows | None, *, is_own: bool) -> str:
    if row is None:
        return "-"
    told = percent(float(row["adversarial_accuracy"]))
    return f"[{told}]" if is_own else told


def _loss(row: Rows) -> float:
    return float(row["adversarial_loss"])


def _percent(row: Rows, kind: str = "adversarial") -> float:
    return 100 * float(row[f"{kind}_accuracy"])
