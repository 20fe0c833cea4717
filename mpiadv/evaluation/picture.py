"""A picture of the broken images that needed the least change. Knows no model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpiadv.evaluation.survivors import Example
from mpiadv.whole_files import whole_file

NUM_SHOWN = 8

Pixels = npt.NDArray[np.float32]


def draw_worst(
    path: Path,
    examples: Sequence[Example],
    natural: Pixels,
    names: Sequence[str],
    labels: list[int],
) -> None:
    """Draw natural images, adversarial ones and the change between them, one column each.

    Args:
        path: a PNG file.
        examples: broken images, at least one.
        natural: float32 [N, C, H, W], the natural images of `examples`.
        names: of the classes.
        labels: of `examples`.
    """
    from matplotlib.figure import Figure

    shown = _least_changed(examples, natural)[:NUM_SHOWN]
    figure = Figure(figsize=(1.6 * len(shown), 5.2), layout="constrained")
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, number in enumerate(shown):
        before, after = natural[number], examples[number].image
        seen = examples[number].prediction
        taken = f"taken for {names[seen]}" if seen >= 0 else "not a number"
        titles = names[labels[number]], taken, "change"
        change = 0.5 + 0.5 * (after - before) / max(1e-12, float(np.abs(after - before).max()))
        for row, image in enumerate((before, after, change)):
            _draw(axes[row, column], image, titles[row])
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _least_changed(examples: Sequence[Example], natural: Pixels) -> list[int]:
    lengths = [float(np.square(e.image - n).sum()) for e, n in zip(examples, natural, strict=True)]
    return [int(number) for number in np.argsort(lengths, kind="stable")]


def _draw(axes: object, image: Pixels, title: str) -> None:
    shown = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
    axes.set_title(title, fontsize=8)  # type: ignore[attr-defined]
    axes.axis("off")  # type: ignore[attr-defined]
