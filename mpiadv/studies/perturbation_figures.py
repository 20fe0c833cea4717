"""Figures of how perturbations change over training: Bhat, Tsipras and Madry 2019, figure 6.

Knows snapshots of perturbations by staleness, no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from mpiadv.report.drawing import PAGE_WIDTH_INCHES, Picture, legend_below, panels
from mpiadv.report.reading import Snapshots
from mpiadv.report.snapshots import as_change, as_image, show_tile
from mpiadv.studies.cycling import Autocorrelation, Cycle, autocorrelation, find_cycle

COLUMNS = 10
IMAGES_SHOWN = 2
CYCLES_SHOWN = 1.5
MULTIPLES_SHOWN = (0.25, 16.0)
"""Lags in units of the staleness; the cycles seen so far take about four."""


@dataclass(frozen=True, kw_only=True)
class Perturbations:
    """The perturbations of one run over its steps, and how they correlate."""

    steps: npt.NDArray[np.int64]
    originals: npt.NDArray[np.float32]
    changes: npt.NDArray[np.float32]
    found: Autocorrelation
    cycle: Cycle | None

    @property
    def every(self) -> int:
        """Training steps between snapshots."""
        return int(np.diff(self.steps).min(initial=self.steps[-1]))


def perturbations_of(taken: Snapshots | None) -> Perturbations | None:
    """What snapshots tell; None where there are none."""
    if taken is None:
        return None
    changes = taken.images - taken.originals
    found = autocorrelation(taken.steps, changes)
    return Perturbations(
        steps=taken.steps,
        originals=taken.originals,
        changes=changes,
        found=found,
        cycle=find_cycle(found),
    )


def perturbation_strip(by_staleness: Mapping[int, Perturbations]) -> Picture | None:
    """The perturbations of the same images over time, a group of rows per staleness (figure 6)."""
    if not by_staleness:
        return None
    largest = max(float(np.nanmax(np.abs(p.changes))) for p in by_staleness.values())
    num_rows = sum(min(IMAGES_SHOWN, len(p.originals)) for p in by_staleness.values())
    height = 0.9 * num_rows + 0.3 * len(by_staleness)
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(num_rows, 1 + COLUMNS, squeeze=False)
    row = 0
    for staleness, shown in by_staleness.items():
        count = min(IMAGES_SHOWN, len(shown.originals))
        _add_group(axes[row : row + count], staleness, shown, max(largest, 1e-6))
        row += count
    return Picture(
        name="perturbations",
        title="The perturbations of the same images over time (the paper's figure 6)",
        figure=figure,
        caption="First column: test images. Then what the evaluation's attack adds to them at the "
        "training step above: white is unchanged, red brighter, blue darker (colour images: grey "
        "is unchanged). Steps are spread over the whole run; where perturbations cycle, over "
        f"{CYCLES_SHOWN:g} cycles from the middle of the run. Sound perturbations settle; a "
        "pattern that moves through the image and comes back is what too much staleness looks "
        "like.",
    )


def autocorrelations(by_staleness: Mapping[int, Perturbations]) -> Picture | None:
    """Similarity of perturbations against the training steps between them."""
    shown = {s: p for s, p in by_staleness.items() if len(p.found.lags) > 1}
    if not shown:
        return None
    figure, (steps, multiples) = panels(height=4.3)
    for (staleness, perturbations), colour in zip(shown.items(), _colours(shown), strict=True):
        _add_curve(steps, perturbations, 1, colour, f"s = {staleness}")
        if staleness:
            _add_curve(multiples, perturbations, staleness, colour, "")
    _lag_axis(steps, "lag (training steps)")
    _lag_axis(multiples, "lag / staleness")
    multiples.set_xlim(*MULTIPLES_SHOWN)
    _similarity_axis(steps)
    _similarity_axis(multiples)
    legend_below(figure, steps, 6)
    return Picture(
        name="autocorrelation",
        title="How perturbations come back to themselves",
        figure=figure,
        caption="Autocorrelation C(lag): the cosine of the angle between the perturbations of the "
        "same test image at two moments of training, <d(t), d(t + lag)> / (|d(t)| |d(t + lag)|), "
        "mean over images and over all t whose snapshots exist, for lags up to half of the run. "
        "1: unchanged, 0: unrelated. Left over the lag, right over the lag in units of the "
        "staleness. A sound run falls slowly and stays; a minimum (triangle) with a maximum (dot) "
        "behind it is a cycle, as long as the maximum's lag. Cycles shorter than two snapshots "
        f"({_intervals(shown)}) cannot be seen.",
    )


def _add_group(
    axes: npt.NDArray[Any], staleness: int, shown: Perturbations, largest: float
) -> None:
    places = _moments(shown)
    for image, row in enumerate(axes):
        show_tile(row[0], as_image(shown.originals[image]))
        for axis, place in zip(row[1:], places, strict=False):
            show_tile(axis, as_change(np.nan_to_num(shown.changes[place, image]) / largest))
        for axis in row[1 + len(places) :]:
            axis.set_axis_off()
    for axis, place in zip(axes[0][1:], places, strict=False):
        axis.set_title(str(shown.steps[place]), fontsize=8, pad=2)
    axes[0][0].set_title("step", fontsize=8, pad=2, loc="right")
    axes[0][0].set_ylabel(f"s = {staleness}", fontsize=10)


def _moments(shown: Perturbations) -> list[int]:
    """Which snapshots to show: over the run, or over some cycles where there are any."""
    first, last = float(shown.steps[0]), float(shown.steps[-1])
    if shown.cycle is not None:
        period = shown.cycle.period or 2 * shown.cycle.half
        middle = (first + last) / 2
        last = min(last, middle + CYCLES_SHOWN * period)
        first = max(first, last - CYCLES_SHOWN * period)
    wanted = np.linspace(first, last, COLUMNS)
    nearest = np.abs(shown.steps[None, :] - wanted[:, None]).argmin(axis=1)
    return [int(place) for place in np.unique(nearest)]


def _add_curve(
    axis: Axes, shown: Perturbations, unit: int, colour: tuple[float, ...], label: str
) -> None:
    lags, cycle = shown.found.lags[1:] / unit, shown.cycle
    axis.plot(lags, shown.found.similarity[1:], color=colour, linewidth=1.6, label=label)
    if cycle is not None:
        axis.plot(cycle.half / unit, cycle.lowest, "v", color=colour, ms=7)
        if cycle.period is not None and cycle.returning is not None:
            axis.plot(cycle.period / unit, cycle.returning, "o", color=colour, ms=7)


def _lag_axis(axis: Axes, label: str) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)


def _similarity_axis(axis: Axes) -> None:
    axis.set_ylim(top=1.02)
    axis.set_ylabel("mean cosine similarity")


def _colours(shown: Mapping[int, Perturbations]) -> list[tuple[float, ...]]:
    """Dark for little staleness, bright for much."""
    count = len(shown)
    return [colormaps["plasma"](0.9 * n / max(1, count - 1)) for n in range(count)]


def _intervals(shown: Mapping[int, Perturbations]) -> str:
    every: Sequence[int] = sorted({perturbations.every for perturbations in shown.values()})
    return f"{every[0]} to {every[-1]} steps apart" if len(every) > 1 else f"{every[0]} steps apart"
