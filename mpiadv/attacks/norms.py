"""Geometry of the ball around each image and of the box of pixels. Knows no model and no attack.

Every operation lets NaN through: a broken gradient has to reach the loss, where it stops the run.
"""

from typing import Protocol

import torch
from torch import Tensor

from mpiadv.attacks.l1 import L1


class Norm(Protocol):
    """What an attack needs to know of a norm; tensors are float32 [N, C, H, W].

    `order` is the p of the p-norm that it is.
    """

    order: float

    def random(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """Perturbations uniform in the ball of radius `epsilon`, shaped like `images`."""

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        """The step of length `step_size` that climbs most; zero where the gradient is zero."""

    def project(self, delta: Tensor, epsilon: float) -> Tensor:
        """The nearest perturbations inside the ball of radius `epsilon`."""


class Linf:
    """Every pixel by itself moves at most epsilon."""

    order = float("inf")

    def random(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        unit = torch.rand(images.shape, generator=generator, device=images.device)
        return unit.mul_(2).sub_(1).mul_(epsilon)

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        # torch.sign turns NaN into 0, which would hide a broken model: gradient * 0 keeps it.
        return (gradient.sign() + gradient * 0).mul_(step_size)

    def project(self, delta: Tensor, epsilon: float) -> Tensor:
        return delta.clamp(-epsilon, epsilon)


class L2:
    """The Euclidean length of each image's perturbation is at most epsilon."""

    order = 2.0

    def random(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        # The first n coordinates of a uniform point on the sphere in n + 2 dimensions are uniform
        # in the ball in n dimensions.
        size = images.shape[1:].numel()
        shape = (len(images), size + 2)
        sphere = torch.randn(shape, generator=generator, device=images.device)
        sphere /= sphere.norm(dim=1, keepdim=True)
        return sphere[:, :size].reshape(images.shape) * epsilon

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        # Squares of small gradients underflow: bring the largest pixel to 1 before measuring.
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        scaled = gradient / torch.where(largest == 0, 1, largest)
        return scaled / _length(scaled).clamp(min=1) * step_size

    def project(self, delta: Tensor, epsilon: float) -> Tensor:
        length = _length(delta)
        return torch.where(length > epsilon, delta * (epsilon / length), delta)


NORMS: dict[str, Norm] = {"linf": Linf(), "l2": L2(), "l1": L1()}


def to_box(images: Tensor) -> Tensor:
    """The nearest images with pixels in [0, 1]."""
    return images.clamp(0, 1)


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length
