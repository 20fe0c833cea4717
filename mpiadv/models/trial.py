"""A model's look at a few images of noise: whether it computes the same after something was done.

Knows nothing of what is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpiadv.models.check import ImageShape
from mpiadv.models.modes import device_of, parameters_frozen
from mpiadv.models.random_streams import streams_kept

_FEW = 2


def few_images(model: nn.Module, image_shape: ImageShape) -> Tensor:
    """Noise on the model's device: float32 [2, C, H, W] in [0, 1], always the same."""
    images = torch.rand(_FEW, *image_shape, generator=torch.Generator().manual_seed(0))
    return images.to(device_of(model))


@contextmanager
def on_trial(model: nn.Module) -> Iterator[None]:
    """The model with other weights than at the beginning; afterwards with its own, of their type.

    Of those of the beginning a last layer of zeros may hide all others. No gradients of parameters
    are computed, and random streams are left as they were.
    """
    parameters = list(model.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    with streams_kept(device_of(model)), parameters_frozen(model):
        try:
            _disturb(parameters)
            yield
        finally:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.data = value.to(parameter.dtype)


@torch.no_grad()
def _disturb(parameters: list[nn.Parameter]) -> None:
    numbers = torch.Generator().manual_seed(1)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=numbers)
        parameter.add_(noise.to(parameter.device, parameter.dtype), alpha=0.1)
