"""Figures of accuracy against staleness: Bhat, Tsipras and Madry 2019, figures 5, 7, 8, and more.

Knows the findings of runs, no file.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log2
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from mpiadv.report.drawing import (
    ADVERSARIAL,
    FRESH,
    NATURAL,
    STALE,
    Picture,
    legend_below,
    over_steps,
    panels,
    raw_and_mean,
)
from mpiadv.report.reading import Log
from mpiadv.studies.staleness_runs import (
    HARMLESS_LOSS,
    Finding,
    Findings,
    Limits,
    State,
    fresh_curve,
    is_of_the_papers_data,
    limits,
    most_telling,
)

PAPER_ADVERSARIAL = {s: 0.90 if s <= 32 else 0.05 for s in (2**power for power in range(11))}
"""Read off the paper's figure 8, to about 2 points."""
PAPER_NATURAL = 0.98

_PAPER = "#8a8a8a"
_MARKS = {"natural": ("o", NATURAL), "adversarial": ("s", ADVERSARIAL)}


def accuracy_by_staleness(findings: Findings) -> Picture | None:
    """Final accuracy against constant staleness (figure 8)."""
    shown = _begun(findings.constant)
    if not shown:
        return None
    figure, (axis,) = panels(1, height=4.2)
    paper = ""
    if is_of_the_papers_data(shown.values()):
        _add_paper(axis, shown)
        paper = " Grey: the paper's figure 8, read off it."
    for kind in _MARKS:
        _add_by_staleness(axis, shown, kind)
    _add_diverged(axis, shown)
    _staleness_axis(axis, list(shown), "staleness at every attack step (training steps)")
    _percent_axis(axis, "accuracy on test images (%)")
    legend_below(figure, axis, 5)
    return Picture(
        name="accuracy-by-staleness",
        title="Accuracy against staleness (the paper's figure 8)",
        figure=figure,
        caption="Final accuracy on natural and on attacked test images of networks that were "
        "trained on batches crafted against the parameters of exactly so many steps ago. In the "
        "paper natural accuracy stays high throughout, and adversarial accuracy stands some "
        f"staleness, then collapses.{_told(limits(findings.constant))}{paper}"
        f"{_hollow_note(shown.values())}{_diverged_note(shown.values())}",
    )


def stale_and_fresh(findings: Findings) -> Picture | None:
    """Accuracy on stale and on fresh training examples over steps (figure 5)."""
    chosen = most_telling(findings.constant)
    if not chosen:
        return None
    figure, axes = panels(len(chosen), height=3.7)
    logs = [_log(findings.constant[s]) for s in chosen]
    for axis, staleness, log in zip(axes, chosen, logs, strict=True):
        _add_stale_and_fresh(axis, log)
        axis.set_title(f"staleness {staleness}")
    for axis in axes[1:]:
        axis.set_ylabel("")
    legend_below(figure, axes, 4)
    return Picture(
        name="stale-and-fresh",
        title="Accuracy on stale and on fresh training examples (the paper's figure 5)",
        figure=figure,
        caption="Accuracy on the training batches as they were crafted, on old parameters, and on "
        f"{_second_curve(logs)}. Light: each value; dark: means over blocks of steps. Where both "
        "lie close together the staleness does no harm. Where the network stands stale examples "
        "and falls to the fresh ones, it has learnt what the old attacks look like, not to "
        "withstand attacks.",
    )


def long_training(findings: Findings) -> Picture | None:
    """Accuracy over several times the steps (figure 7)."""
    log = findings.long.log
    if log is None or not len(log.train):
        return None
    figure, (training, tests) = panels()
    _add_stale_and_fresh(training, log)
    for kind, (mark, colour) in _MARKS.items():
        values = 100 * log.evaluation[f"{kind}_accuracy"]
        tests.plot(log.evaluation["step"], values, color=colour, marker=mark, ms=4, label=kind)
    over_steps(tests, "accuracy on test images (%)", num_steps=log.num_steps, resumes=log.resumes)
    tests.set_ylim(-2, 102)
    training.set_title("training batches")
    tests.set_title("test images")
    training.legend(loc="best")
    tests.legend(loc="best")
    staleness = log.config.get("staleness.max_staleness")
    return Picture(
        name="long-training",
        title="Longer training at a staleness that is too much (the paper's figure 7)",
        figure=figure,
        caption=f"{log.num_steps} of {log.planned_steps} training steps at staleness {staleness}. "
        f"Left: accuracy on training batches as crafted, and on {_second_curve([log])}. Right: on "
        "test images. In the paper, at staleness 64 and 300,000 steps, robustness comes back half "
        f"way.{_diverged_note([findings.long])}",
    )


def refreshed_attacks(findings: Findings) -> Picture | None:
    """Accuracy against the staleness of the last attack step, for several of the first."""
    lines = {
        largest: shown for largest, line in findings.refreshed.items() if (shown := _begun(line))
    }
    if not any(final < largest for largest, line in lines.items() for final in line):
        return None
    figure, axes = panels(height=4.2)
    finals = {final for line in lines.values() for final in line}
    constant = {s: o for s, o in _begun(findings.constant).items() if s <= max(finals)}
    places = sorted({*finals, *constant})
    for axis, kind in zip(axes, ("adversarial", "natural"), strict=True):
        _add_line(axis, constant, kind, colour=_PAPER, style="--", label="constant")
        for (largest, line), colour in zip(lines.items(), _colours(len(lines)), strict=True):
            _add_line(axis, line, kind, colour=colour, style="-", label=f"first step: {largest}")
        _staleness_axis(axis, places, "staleness of the last attack step (training steps)")
        _percent_axis(axis, f"{kind} accuracy on test images (%)")
    legend_below(figure, axes[0], 4)
    return Picture(
        name="refreshed-attacks",
        title="Constant against refreshed attacks",
        figure=figure,
        caption="Attacks that take up newer parameters while they are crafted: the first attack "
        "step is as stale as the line's number says, the last as the abscissa says, those between "
        "evenly spread; a line's right end is constant staleness. Dashed: constant staleness of "
        "the abscissa. Where a line keeps near the dashed one, it is the last attack steps whose "
        f"staleness counts, and the first may be old at no cost."
        f"{_hollow_note(_all(lines.values()))}{_diverged_note(_all(lines.values()))}",
    )


def rate_map(findings: Findings) -> Picture | None:
    """Adversarial accuracy over learning rate and constant staleness."""
    rates = [rate for rate, line in findings.by_rate.items() if _begun(line)]
    if not rates:
        return None
    columns = list(findings.by_rate[rates[0]])
    figure, (axis,) = panels(1, height=1.8 + 0.55 * len(rates))
    cells = [[findings.by_rate[rate][s] for s in columns] for rate in reversed(rates)]
    values = np.array([[100 * cell.adversarial for cell in row] for row in cells])
    colours = colormaps["viridis"].with_extremes(bad="#dddddd")
    image = axis.imshow(np.ma.masked_invalid(values), colours, vmin=0, vmax=100, aspect="auto")
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            pale = not cell.adversarial <= 0.6
            axis.text(
                column, row, _cell(cell), ha="center", va="center",
                color="black" if pale else "white",
            )  # fmt: skip
    axis.set_xticks(range(len(columns)), [str(s) for s in columns])
    axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in reversed(rates)])
    axis.grid(False)
    axis.set_xlabel("staleness at every attack step (training steps)")
    axis.set_ylabel("learning rate")
    figure.colorbar(image, ax=axis, label="adversarial accuracy (%)")
    return Picture(
        name="staleness-and-learning-rate",
        title="How much staleness a learning rate stands",
        figure=figure,
        caption="Final adversarial accuracy (%) on test images over constant staleness and "
        f"learning rate ({_schedule(findings)}). If what counts is how far the parameters move in "
        "so many steps, a larger rate stands less staleness. A low number in the first column says "
        "that the rate alone is too small for so few steps, or too large."
        f"{_diverged_note(_all(findings.by_rate.values()))}",
    )


def _begun(line: Mapping[int, Finding]) -> dict[int, Finding]:
    """What can be drawn: evaluated at least once, or diverged."""
    return {
        s: finding
        for s, finding in sorted(line.items())
        if finding.state is State.DIVERGED or finding.num_images
    }


def _log(finding: Finding) -> Log:
    assert finding.log is not None, "only what has a log is drawn"
    return finding.log


def _add_by_staleness(axis: Axes, shown: Mapping[int, Finding], kind: str) -> None:
    mark, colour = _MARKS[kind]
    _add_line(axis, shown, kind, colour=colour, style="-", label=kind, mark=mark)


def _add_line(
    axis: Axes,
    line: Mapping[int, Finding],
    kind: str,
    *,
    colour: Any,
    style: str,
    label: str,
    mark: str = "s",
) -> None:
    """Accuracies joined; hollow marks for runs that are not over, gaps for those that diverged."""
    values = [100 * float(getattr(finding, kind)) for finding in line.values()]
    drawn: dict[str, Any] = {"color": colour, "marker": mark, "ms": 6, "clip_on": False}
    axis.plot([_place(s) for s in line], values, linestyle=style, label=label, **drawn)
    still = [
        (_place(s), v) for (s, o), v in zip(line.items(), values, strict=True) if not o.is_judged
    ]
    for place, value in still:
        axis.plot(place, value, markerfacecolor="white", **drawn)


def _add_diverged(axis: Axes, shown: Mapping[int, Finding]) -> None:
    lost = [_place(s) for s, finding in shown.items() if finding.state is State.DIVERGED]
    if lost:
        axis.plot(lost, [0] * len(lost), "x", color="black", ms=8, clip_on=False, label="diverged")


def _add_paper(axis: Axes, shown: Mapping[int, Finding]) -> None:
    places = [s for s in PAPER_ADVERSARIAL if s <= max(shown)]
    natural = [100 * PAPER_NATURAL] * len(places)
    adversarial = [100 * PAPER_ADVERSARIAL[s] for s in places]
    at = [_place(s) for s in places]
    axis.plot(at, natural, color=_PAPER, linestyle=":", linewidth=1.3, label="paper: natural")
    axis.plot(
        at, adversarial, color=_PAPER, linestyle="--", linewidth=1.3, label="paper: adversarial"
    )


def _add_stale_and_fresh(axis: Axes, log: Log) -> None:
    steps, values = log.train["step"], 100 * log.column("accuracy")
    raw_and_mean(axis, steps, values, colour=STALE, label="stale examples, as trained on")
    fresh_steps, fresh = fresh_curve(log)
    if len(fresh):
        raw_and_mean(
            axis, fresh_steps, 100 * fresh, colour=FRESH, label="fresh examples",
            width=max(1, len(fresh) // 25),
        )  # fmt: skip
    else:
        tests = log.evaluation
        axis.plot(
            tests["step"], 100 * tests["adversarial_accuracy"], color="#555555", marker="s", ms=4,
            label="attacked test images",
        )  # fmt: skip
    over_steps(axis, "accuracy (%)", num_steps=log.num_steps, resumes=log.resumes)
    axis.set_ylim(-2, 102)


def _second_curve(logs: Sequence[Log]) -> str:
    have_fresh = [len(fresh_curve(log)[0]) > 0 for log in logs]
    if all(have_fresh):
        return "the same batches attacked with the parameters of that step"
    if any(have_fresh):
        return (
            "the same batches attacked with the parameters of that step; on attacked test images "
            "where the log holds no such"
        )
    return "attacked test images, as these logs hold no fresh training examples"


def _place(staleness: int) -> float:
    """Where a staleness stands on a logarithmic axis that has a 0: doubling is one to the right."""
    return 1 + log2(staleness) if staleness else 0.0


def _staleness_axis(axis: Axes, shown: Sequence[int], label: str) -> None:
    axis.set_xticks([_place(s) for s in shown], [str(s) for s in shown])
    axis.set_xlim(min(map(_place, shown)) - 0.2, max(map(_place, shown)) + 0.2)
    axis.set_xlabel(label)


def _percent_axis(axis: Axes, label: str) -> None:
    axis.set_ylim(0, 101)
    axis.set_ylabel(label)


def _colours(count: int) -> list[tuple[float, ...]]:
    return [colormaps["viridis"](0.1 + 0.75 * n / max(1, count - 1)) for n in range(count)]


def _cell(cell: Finding) -> str:
    if cell.state in (State.DIVERGED, State.MISSING) or not cell.num_images:
        return cell.state.value
    number = f"{100 * cell.adversarial:.1f}"
    return number if cell.is_judged else f"{number}\nafter {cell.step}"


def _all(lines: Iterable[Mapping[int, Finding]]) -> list[Finding]:
    return [finding for line in lines for finding in line.values()]


def _hollow_note(findings: Iterable[Finding]) -> str:
    if not any(finding.state is State.UNFINISHED for finding in findings):
        return ""
    return " Hollow marks: runs that are not finished, at their last evaluation."


def _diverged_note(findings: Iterable[Finding]) -> str:
    if not any(finding.state is State.DIVERGED for finding in findings):
        return ""
    return " Diverged: the loss became NaN or infinite, and the run ended there."


def _told(found: Limits | None) -> str:
    if found is None:
        return ""
    told = ""
    if found.harmless is not None:
        told += f" Here up to {found.harmless} costs at most {100 * HARMLESS_LOSS:.0f} points."
    if found.collapsed is None:
        return f"{told} No staleness tried takes more than half of the robustness."
    return f"{told} {found.collapsed} is the first that takes more than half of the robustness."


def _schedule(findings: Findings) -> str:
    for finding in _all(findings.by_rate.values()):
        if finding.log is not None:
            name = finding.log.config.get("schedule.name")
            return "the peak of the schedule" if name == "one_cycle" else f"{name} schedule"
    return ""
