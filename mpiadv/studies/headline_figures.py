"""Table and figure of the headline. Knows no file, no torch and no MPI."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from mpiadv.process.words import duration
from mpiadv.report.drawing import ADVERSARIAL, FIRST, NATURAL, Picture, legend_below, panels
from mpiadv.report.reading import Floats
from mpiadv.studies.results import Results, Table, percent

COLOURS = (ADVERSARIAL, FIRST, NATURAL, "#8fbbd9")
"""Of the runs in their order, and of the emulated one."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When a run first had an accuracy: after which training step, and seconds of training."""

    num_steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """A run of the comparison.

    Attributes:
        step_seconds: usual seconds per training step.
        reached: when it had the accuracy that the runs are compared at; None: never.
        elapsed: seconds of training before each evaluation, evaluations left out: float64 [E].
        natural, adversarial: test accuracy of each evaluation, 0 to 1: float64 [E].
    """

    label: str
    ranks: int
    step_seconds: float
    reached: Reached | None
    elapsed: Floats
    natural: Floats
    adversarial: Floats
    is_emulated: bool = False

    @property
    def name(self) -> str:
        """The run with its ranks."""
        return f"{self.label}, {self.on}"

    @property
    def on(self) -> str:
        """Its ranks."""
        ranks = f"{self.ranks} rank{'s' if self.ranks > 1 else ''}"
        return f"{ranks}, emulated" if self.is_emulated else ranks


def shown(arms: Sequence[Arm], target: float, *, are_all: bool) -> Results:
    """All that the study shows of the runs there are.

    Args:
        target: adversarial test accuracy to compare at, 0 to 1; 0: there is none.
        are_all: whether no run is missing.
    """
    parts: list[Table | Picture] = []
    if arms:
        parts = [_table(arms, target), _picture(arms, target)]
    if are_all:
        parts.insert(1, _beside_the_paper(arms))
    findings = [_finding(arms, target)] if are_all else ["Not all runs have begun."]
    return Results(
        title="The headline: fewer attack steps, and attacks in parallel",
        introduction=[_INTRODUCTION, *findings],
        parts=parts,
    )


_INTRODUCTION = (
    "The paper brought robust training on MNIST from 4 hours to 9 minutes, 26 times as fast: by 8 "
    "attack steps in the place of 40, and by 8 GPUs, of which one trains and the others craft. "
    "Here the same is measured on this machine: a rank is one core, synchronous training uses one "
    "rank, the asynchronous run several, and its attacks are refreshed while they are crafted. The "
    "runs took turns, and nothing of the study ran beside them."
)


def _finding(arms: Sequence[Arm], target: float) -> str:
    first, _, last = arms[:3]
    per_step = first.step_seconds / last.step_seconds
    told = f"Per training step {last.name} is {per_step:.1f} times as fast as {first.name}"
    if first.reached and last.reached:
        ratio = first.reached.seconds / last.reached.seconds
        told += f", to {percent(target)} % adversarial accuracy {ratio:.1f} times"
    told += "."
    for arm in arms[3:]:
        told += (
            f" On {arm.ranks} emulated ranks, each as fast as one of this machine's, a step would "
            f"be {first.step_seconds / arm.step_seconds:.1f} times as fast."
        )
    return told


def _table(arms: Sequence[Arm], target: float) -> Table:
    at = f"to {percent(target)} %" if target else "to the same accuracy"
    first = arms[0]
    return Table(
        title="Time per step, and to the same accuracy",
        caption="Time per step: median over blocks of steps. Steps and time to an adversarial "
        "test accuracy: to the first evaluation that shows as much, without the time of "
        "evaluations; the accuracy is the highest that all runs reach, unless another was asked "
        "for. Times as fast: the first row's time by this one's. Emulated: the steps of the run "
        "above it, which any number of ranks trains to the same bits, at the speed of ranks that "
        "wait as long as that run's took to train and to craft.",
        headings=[
            "training", "ms per step", "times as fast", f"steps {at}", f"time {at}",
            "times as fast", "natural, %", "adversarial, %",
        ],
        rows=[_row(arm, first) for arm in arms],
    )  # fmt: skip


def _row(arm: Arm, first: Arm) -> list[str]:
    there = ["-", "-", "-"]
    if arm.reached:
        ratio = _ratio(first.reached.seconds if first.reached else None, arm.reached.seconds)
        there = [str(arm.reached.num_steps), _time(arm.reached.seconds), ratio]
    accuracies = [percent(float(values[-1])) if len(values) else "-" for values in _last(arm)]
    return [
        arm.name,
        f"{1000 * arm.step_seconds:.1f}",
        _ratio(first.step_seconds, arm.step_seconds),
        *there,
        *accuracies,
    ]


def _last(arm: Arm) -> tuple[Floats, Floats]:
    return arm.natural, arm.adversarial


def _beside_the_paper(arms: Sequence[Arm]) -> Table:
    many, few, asynchronous = arms[:3]
    emulated = arms[3] if len(arms) > 3 else None
    seconds = [many.step_seconds, few.step_seconds, asynchronous.step_seconds]
    rows = [
        ["8 attack steps in the place of 40", _ratio(seconds[0], seconds[1]), "-"],
        [f"{asynchronous.ranks} ranks in the place of one", _ratio(seconds[1], seconds[2]), "-"],
        [f"both, on {asynchronous.ranks} ranks", _ratio(seconds[0], seconds[2]), "-"],
    ]
    if emulated:
        rows += [
            [f"{emulated.ranks} ranks in the place of one, emulated",
             _ratio(seconds[1], emulated.step_seconds), "about 5, 8 GPUs"],
            [f"both, on {emulated.ranks} emulated ranks",
             _ratio(seconds[0], emulated.step_seconds), "26, 8 GPUs: 4 hours to 9 minutes"],
        ]  # fmt: skip
    return Table(
        title="Beside the paper",
        caption="How many times as fast a training step becomes. The paper's figures are of whole "
        "trainings on GPUs.",
        headings=["what", "here", "Bhat et al."],
        rows=rows,
    )


def _picture(arms: Sequence[Arm], target: float) -> Picture:
    figure, (accuracy, speed) = panels(height=4.4, widths=(1.5, 1.0))
    for arm, colour in zip(arms, COLOURS, strict=False):
        if not arm.is_emulated:
            _add_accuracy(accuracy, arm, colour)
    if target:
        accuracy.axhline(100 * target, color="#555555", linestyle="--", linewidth=1.1)
    accuracy.set_xscale("log")
    accuracy.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    accuracy.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    accuracy.xaxis.set_minor_formatter(NullFormatter())
    accuracy.set_ylim(0, 101)
    accuracy.set_xlabel("seconds of training (logarithmic)")
    accuracy.set_ylabel("adversarial test accuracy (%)")
    _add_speeds(speed, arms)
    legend_below(figure, accuracy, 3)
    return Picture(
        name="headline",
        title="Accuracy over time, and time per step",
        figure=figure,
        caption="Left: adversarial test accuracy over the seconds spent on training, without "
        "evaluations; dashed: the accuracy that the table compares at, rings: where each run first "
        "had it. The further left a curve, the faster. Right: time per training step; pale: "
        "emulated.",
    )


def _add_accuracy(axis: Axes, arm: Arm, colour: str) -> None:
    known = arm.elapsed > 0
    axis.plot(
        arm.elapsed[known], 100 * arm.adversarial[known], color=colour, marker="o", ms=3.5,
        label=arm.name,
    )  # fmt: skip
    if arm.reached:
        height = 100 * arm.adversarial[arm.elapsed >= arm.reached.seconds][0]
        axis.plot(
            arm.reached.seconds, height, color=colour, marker="o", ms=11,
            markerfacecolor="none", markeredgewidth=1.8,
        )  # fmt: skip


def _add_speeds(axis: Axes, arms: Sequence[Arm]) -> None:
    names = [f"{arm.label},\n{arm.on}" for arm in arms]
    seconds = [1000 * arm.step_seconds for arm in arms]
    bars = axis.barh(names, seconds, color=COLOURS[: len(arms)], height=0.65)
    axis.bar_label(bars, labels=[f"{value:.3g}" for value in seconds], padding=3, fontsize=9)
    axis.set_xlabel("milliseconds per training step")
    axis.set_xlim(0, 1.18 * max([value for value in seconds if isfinite(value)], default=1.0))
    axis.invert_yaxis()
    axis.grid(False, axis="y")


def _ratio(before: float | None, after: float) -> str:
    return f"{before / after:.2f}" if before and after else "-"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
