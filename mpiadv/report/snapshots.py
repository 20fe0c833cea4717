"""The strip of snapshots: how the attack on the same images changed over the run.

Bhat, Tsipras and Madry 2019, figure 6: with too much staleness the perturbations form a line that
moves through the image in cycles; in a sound run they settle.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpiadv.report.drawing import PAGE_WIDTH_INCHES, Picture
from mpiadv.report.reading import Log

_FEWEST_COLUMNS = 6
"""Fewer snapshots leave room: larger tiles would fill the screen."""


def snapshots(log: Log) -> Picture | None:
    """The same test images attacked at steps spread over the run, one row per image."""
    taken = log.snapshots
    if taken is None:
        return None
    changes = taken.images - taken.originals
    largest = float(np.abs(changes).max())
    rows = [
        [as_image(original), *(as_change(shot[index] / max(largest, 1e-6)) for shot in changes)]
        for index, original in enumerate(taken.originals)
    ]
    return Picture(
        name="snapshots",
        title="The same images attacked over the run",
        figure=_strip(rows, ["image", *(f"step {step}" for step in taken.steps)]),
        caption="First column: test images. Then the perturbation that the evaluation's attack "
        "finds against the model of that step: white is unchanged, red brighter, blue darker "
        "(colour images: grey is unchanged), full colour the largest change, "
        f"{largest:.3g} of the pixels' range. {len(taken.steps)} of {taken.num_taken} snapshots, "
        "one column per training step. In a sound run the perturbations settle; a pattern that "
        "moves through the image and comes back is what too much staleness looks like (Bhat et "
        "al. 2019, figure 6).",
    )


def as_image(image: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """[C, H, W] in [0, 1] as [H, W, 3]."""
    colour = image if image.shape[0] == 3 else np.repeat(image.mean(0, keepdims=True), 3, axis=0)
    shown: npt.NDArray[Any] = np.clip(colour.transpose(1, 2, 0), 0.0, 1.0)
    return shown


def as_change(change: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """[C, H, W] in [-1, 1] as [H, W, 3]: grey images in red and blue, colour ones around grey."""
    if change.shape[0] == 3:
        colour: npt.NDArray[Any] = np.clip(0.5 + 0.5 * change.transpose(1, 2, 0), 0.0, 1.0)
        return colour
    value = np.clip(change.mean(0), -1.0, 1.0)
    up, down = np.maximum(value, 0.0), np.maximum(-value, 0.0)
    return np.stack([1 - 0.85 * down, 1 - 0.85 * (up + down), 1 - 0.85 * up], axis=-1)


def _strip(rows: list[list[npt.NDArray[Any]]], headings: list[str]) -> Figure:
    columns = max(_FEWEST_COLUMNS, len(headings))
    height = PAGE_WIDTH_INCHES / columns * len(rows) + 0.35
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, tiles in zip(axes, rows, strict=True):
        for axis, tile in zip(row, tiles, strict=False):
            show_tile(axis, tile)
        for axis in row[len(tiles) :]:
            axis.set_axis_off()
    for axis, heading in zip(axes[0], headings, strict=False):
        axis.set_title(heading, fontsize=9)
    return figure


def show_tile(axis: Axes, tile: npt.NDArray[Any]) -> None:
    """Draw a picture, [H, W, 3] in [0, 1], in a thin frame without scales."""
    axis.imshow(tile, vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color="#bbbbbb", linewidth=0.6)
