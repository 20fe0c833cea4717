"""Geometry of the L1 ball around each image. Knows no model and no attack.

NaN passes through every operation, as it does in `norms`.
"""

import math

import torch
from torch import Tensor

MOVED_FRACTION = 0.01
"""Share of the pixels that one step moves: Tramèr and Boneh 2019, their q of 99 %."""

BISECTIONS = 30
"""Halvings in search of the projection's threshold: below the spacing of float32."""

_PIXELS = (1, 2, 3)


class L1:
    """The absolute values of each image's perturbation sum up to at most epsilon."""

    order = 1.0

    def random(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        # Of n + 1 exponential variables divided by their sum, the first n, with random signs, are
        # uniform in the ball in n dimensions.
        size = images.shape[1:].numel()
        spacings = torch.empty(len(images), size + 1, device=images.device)
        spacings.exponential_(generator=generator)
        lengths = spacings[:, :size] / spacings.sum(dim=1, keepdim=True)
        coins = torch.rand(lengths.shape, generator=generator, device=images.device)
        return torch.where(coins < 0.5, -lengths, lengths).reshape(images.shape) * epsilon

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        """The pixels with the largest gradients, each by the same amount.

        The steepest step moves one pixel alone and makes the attack slow: Tramèr and Boneh 2019,
        "Adversarial Training and Robustness for Multiple Perturbations", section 3, move the
        largest 1 % together.
        """
        magnitude = gradient.abs().flatten(1)
        count = math.ceil(MOVED_FRACTION * magnitude.shape[1])
        smallest = magnitude.topk(count, dim=1).values[:, -1:]
        is_moved = (magnitude >= smallest) & (magnitude > 0)
        signs = gradient.flatten(1).sign() * is_moved / is_moved.sum(dim=1, keepdim=True).clamp(1)
        # The sign of NaN is 0, which would hide a broken model: gradient * 0 keeps it.
        return signs.reshape(gradient.shape) * step_size + gradient * 0

    def project(self, delta: Tensor, epsilon: float) -> Tensor:
        """Every pixel shrinks by the same amount, to zero at most.

        That amount (Duchi et al. 2008, "Efficient Projections onto the l1-Ball", section 3) is
        found by bisection: a running sum has no order of its own on a GPU.
        """
        magnitude = delta.abs()
        low = torch.zeros_like(magnitude[:, :1, :1, :1])
        high = magnitude.amax(dim=_PIXELS, keepdim=True)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_outside = _length((magnitude - middle).clamp(min=0)) > epsilon
            low, high = torch.where(is_outside, middle, low), torch.where(is_outside, high, middle)
        shrunk = delta.sign() * (magnitude - high).clamp(min=0)
        return torch.where(_length(magnitude) <= epsilon, delta, shrunk)


def drop_blocked(gradient: Tensor, images: Tensor) -> Tensor:
    """The gradient without the pixels that already are at the end of [0, 1] it pushes them to.

    A sparse step would be spent on them: both tensors float32 [N, C, H, W].
    """
    is_blocked = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
    return torch.where(is_blocked, 0, gradient)


def _length(magnitude: Tensor) -> Tensor:
    return magnitude.sum(dim=_PIXELS, keepdim=True)
