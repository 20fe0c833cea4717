"""The gradient that an attack climbs. Knows no attack; leaves the model as it finds it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.models.random_streams import seed_streams

Precision = Literal["float32", "bfloat16"]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""From logits float32 [N, K] and labels int64 [N] to one number."""


def mixed_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast to bfloat16 on `device`; for "float32" autocast is off, also inside another one."""
    enabled = precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def forward(model: nn.Module, images: Tensor, *, precision: Precision, seed: int) -> Tensor:
    """Logits float32 [N, K] of images float32 [N, C, H, W] in [0, 1].

    `seed` is of whatever the model draws at random, in evaluation mode too: some models do.
    """
    seed_streams(seed, images.device)
    with mixed_precision(images.device, precision):
        logits: Tensor = model(images)
    return logits.float()


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over the batch, so that no image's gradient depends on the others."""
    return F.cross_entropy(logits, labels, reduction="sum")


def mean_magnitude(gradient: Tensor) -> Tensor:
    """L1 norm of each image's gradient, mean over images: float32 [N, C, H, W] to []."""
    return gradient.abs().sum(dim=(1, 2, 3)).mean()


def input_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    precision: Precision,
    seed: int,
    loss: LossFunction = summed_cross_entropy,
) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the images, and the logits that came with it.

    No gradients of weights are computed and no `.grad` is touched. The loss is in float32.

    Args:
        model: from pixels to logits, in the mode that the caller chose.
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N].
        precision: "bfloat16" runs the model under autocast.
        seed: of what the model draws at random.
        loss: from logits and labels to one number, a sum over samples.

    Returns:
        The gradient float32 [N, C, H, W], and the detached logits float32 [N, K].
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), mixed_precision(images.device, "float32"):
        logits = forward(model, images, precision=precision, seed=seed)
        total = loss(logits, labels)
    (gradient,) = torch.autograd.grad(total, images)
    return gradient, logits.detach()
