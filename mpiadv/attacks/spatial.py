"""Rotated and shifted images: an attack that needs no gradient. Knows no model.

Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness", section 3: a grid of
rotations and shifts, bilinear interpolation, black where the image was not.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How an image is moved: turned counter-clockwise about its centre, then shifted, in pixels."""

    degrees: float
    right: float
    down: float


@lru_cache(maxsize=4)
def placements(
    *, max_degrees: float, num_angles: int, max_pixels: float, num_shifts: int
) -> tuple[Placement, ...]:
    """The grid of angles and of shifts in both directions, evenly spaced, ends included."""
    shifts = _spread(max_pixels, num_shifts)
    return tuple(
        Placement(degrees=degrees, right=right, down=down)
        for degrees in _spread(max_degrees, num_angles)
        for right in shifts
        for down in shifts
    )


@torch.no_grad()
def place(images: Tensor, placement: Placement) -> Tensor:
    """Images float32 [N, C, H, W] in [0, 1], turned and shifted, in the same shape and range."""
    theta = _source_of(placement, height=images.shape[2], width=images.shape[3])
    return _moved(images, theta.expand(len(images), 2, 3))


@torch.no_grad()
def place_each(images: Tensor, *, degrees: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """As `place`, each image in its own way: three tensors float64 [N] on the CPU."""
    placements = [
        Placement(degrees=turned, right=x, down=y)
        for turned, x, y in zip(degrees.tolist(), right.tolist(), down.tolist(), strict=True)
    ]
    height, width = images.shape[2:]
    return _moved(
        images, torch.stack([_source_of(p, height=height, width=width) for p in placements])
    )


def _moved(images: Tensor, theta: Tensor) -> Tensor:
    """Images as seen through maps float32 [N, 2, 3] from where pixels go to where they are from."""
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False).clamp_(0, 1)


def _spread(largest: float, count: int) -> list[float]:
    """So many numbers from -largest to largest; a single one is 0."""
    return [float(value) for value in np.linspace(-largest, largest, count)] if count > 1 else [0.0]


def _source_of(placement: Placement, *, height: int, width: int) -> Tensor:
    """From places in the moved image to places in the given one, both in [-1, 1]: [2, 3]."""
    angle = math.radians(placement.degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # Rows grow downwards, and the two directions have different units if the image is no square.
    turn = torch.tensor([[cos, -sin * height / width], [sin * width / height, cos]])
    shift = torch.tensor([[2 * placement.right / width], [2 * placement.down / height]])
    return torch.cat([turn, -turn @ shift], dim=1)
