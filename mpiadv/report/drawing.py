"""What all figures share: size, colours, marks, and turning one into PNG or PDF. Knows no log."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mpiadv.report.series import COLOURS, Blocks, in_blocks

MARK = "made by mpiadv report"
"""Stands in every file that this package writes, which it may therefore write over."""

PAGE_WIDTH_INCHES = 10.0
DOTS_PER_INCH = 150

NATURAL, ADVERSARIAL = "#1f77b4", "#c62828"
FIRST, LAST = "#5e35b1", "#ef8e19"
STALE, FRESH = "#c62828", "#2e7d32"

_PALE = ("other", "waiting for tickets")

_STYLE: Mapping[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names of runs may hold a $
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with what to say about it. `name` is its file's, without the ending."""

    name: str
    title: str
    caption: str
    figure: Figure


def style() -> AbstractContextManager[None]:
    """Draw within this: figures take their fonts and lines from the settings around them."""
    settings: Any = dict(_STYLE)  # matplotlib types its keys as literals, and not in all releases
    return mpl.rc_context(settings)


def panels(
    columns: int = 2, *, height: float = 3.6, widths: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A new figure of the page's width with a row of panels; `height` in inches."""
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, width_ratios=widths)
    return figure, list(axes[0])


def over_steps(axis: Axes, label: str, *, num_steps: int, resumes: Sequence[int] = ()) -> None:
    """Finish a panel whose abscissa is the training step: labels, range, a line per resume."""
    axis.set_xlabel("training step")
    axis.set_ylabel(label)
    axis.set_xlim(0, max(1, num_steps))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for number, step in enumerate(resumes):
        axis.axvline(
            step, color="#555555", linestyle="--", linewidth=1.2, zorder=3,
            label=None if number else "resumed",
        )  # fmt: skip


def raw_and_mean(
    axis: Axes, steps: Any, values: Any, *, colour: str, label: str, width: int | None = None
) -> Blocks:
    """Every value lightly, its mean over blocks, which are returned, strongly."""
    blocks = in_blocks(steps, values, width)
    # As pixels: sixty thousand points would make a vector file of megabytes.
    axis.plot(steps, values, color=colour, alpha=0.22, linewidth=0.7, rasterized=True)
    marker = "o" if len(blocks.steps) < 3 else ""
    axis.plot(blocks.steps, blocks.mean, color=colour, linewidth=1.8, marker=marker, label=label)
    return blocks


def stacked_bars(axis: Axes, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A horizontal bar per row, its fractions side by side, in percent where there is room."""
    names = list(rows)
    activities = list(dict.fromkeys(name for row in rows.values() for name in row))
    left = [0.0] * len(names)
    for activity in activities:
        widths = [100 * rows[name].get(activity, 0.0) for name in names]
        bars = axis.barh(
            names, widths, left=left, color=COLOURS[activity], label=activity, height=0.7
        )
        shown = [f"{width:.0f}" if width >= 6 and len(names) <= 24 else "" for width in widths]
        colour = "#222222" if activity in _PALE else "white"
        axis.bar_label(bars, labels=shown, label_type="center", color=colour, fontsize=9)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of the time (%)")
    spare = max(0, 3 - len(names)) / 2  # a lone bar stays a bar
    axis.set_ylim(len(names) - 0.5 + spare, -0.5 - spare)
    axis.grid(False, axis="y")
    if len(names) > 24:
        axis.yaxis.set_major_locator(MaxNLocator(16, integer=True))


def legend_below(figure: Figure, axes: Axes | Sequence[Axes], columns: int) -> None:
    """One legend under the whole figure, with each label of the axes once."""
    shown: dict[str, Any] = {}
    for axis in [axes] if isinstance(axes, Axes) else axes:
        handles, labels = axis.get_legend_handles_labels()
        shown.update(zip(labels, handles, strict=True))
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=columns, frameon=False
    )


def saved(figure: Figure, kind: Literal["png", "pdf"]) -> bytes:
    """A figure as a file of that kind, the same bytes for the same figure."""
    metadata = {"png": {"Software": MARK}, "pdf": {"Creator": MARK, "CreationDate": None}}[kind]
    buffer = BytesIO()
    with style():
        figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()
