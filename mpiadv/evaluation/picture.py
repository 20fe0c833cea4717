"""A picture of the broken images that needed the least change. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.storage.whole_files import whole_file

if TYPE_CHECKING:  # loaded where a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_SHOWN = 8
"""At most."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """A broken image, before and after: float32 [C, H, W] in [0, 1]."""

    natural: Pixels
    adversarial: Pixels
    label: str
    found: str
    attack: AttackSpec


def save_picture(path: Path, columns: Sequence[Column], name: str) -> None:
    """Write `picture` into a PNG file."""
    figure = picture(columns, name)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def picture(columns: Sequence[Column], name: str) -> "Figure":
    """Natural images, adversarial ones and the change between them, one column each.

    `columns` are one at least; `name` is the network's.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.5, 1.45 * len(columns)), 5.6), layout="constrained")
    figure.suptitle(_heading(columns, name), fontsize=9, parse_math=False)
    axes = figure.subplots(3, len(columns), squeeze=False)
    for place, column in enumerate(columns):
        difference = column.adversarial - column.natural
        change = 0.5 + 0.5 * difference / max(1e-12, float(np.abs(difference).max()))
        _draw(axes[0, place], column.natural, f"true: {_short(column.label)}")
        _draw(axes[1, place], column.adversarial, f"found: {_short(column.found)}")
        _draw(axes[2, place], change, f"change\n{column.attack.title}")
    return figure


def _heading(columns: Sequence[Column], name: str) -> str:
    attacks = dict.fromkeys(_described(column.attack) for column in columns)
    return "\n".join([f"{name}: broken images, the least changed first", *attacks])


def _described(attack: AttackSpec) -> str:
    if attack.kind == "grid":
        return f"{attack.title}, {attack.details}"
    return f"{attack.title}, epsilon = {attack.epsilon:g} in {attack.norm}"


def _short(name: str) -> str:
    """As much of a class's name as has room above its image."""
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


_MOST_LETTERS = 18


def _draw(axes: "Axes", image: Pixels, title: str) -> None:
    shown = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.axis("off")
