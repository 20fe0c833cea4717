"""A model's look at a few images of noise: whether it computes the same after something was done.

Knows nothing of what is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from mpiadv.models.check import ImageShape
from mpiadv.models.modes import device_of, parameters_frozen
from mpiadv.models.random_streams import streams_kept

_FEW, _FEWEST = 16, 2
_PIXELS = 16_384
"""Of all images together, but for the fewest: of larger ones there are fewer."""

_RISING = 0.2
"""The share of weights that are doubled; the others are halved. So their squares' mean stays."""


def few_images(model: nn.Module, image_shape: ImageShape) -> Tensor:
    """Noise on the model's device: float32 [N, C, H, W] in [0, 1], always the same."""
    count = max(_FEWEST, min(_FEW, _PIXELS // prod(image_shape[1:])))
    images = torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))
    return images.to(device_of(model))


@contextmanager
def on_trial(model: nn.Module) -> Iterator[None]:
    """The model with other weights than at the beginning; afterwards with its own, of their type.

    Of those of the beginning a last layer of zeros may hide all others. No gradients of parameters
    are computed, and random streams are left as they were.
    """
    parameters = list(model.parameters())
    kept = [(parameter.data, parameter.detach().clone()) for parameter in parameters]
    with streams_kept(device_of(model)), parameters_frozen(model):
        try:
            _disturb(parameters)
            yield
        finally:
            for parameter, (data, values) in zip(parameters, kept, strict=True):
                # In the same memory, which others may look at too.
                data.copy_(values)
                parameter.data = data.to(parameter.dtype)


@contextmanager
def moved(model: nn.Module) -> Iterator[None]:
    """The model's weights changed in place, as by a training step; afterwards as they were.

    What shares memory with them moves along, be it another parameter, a buffer or an attribute.
    """
    weights = list(filter(_has_fractions, model.parameters()))
    kept = [weight.detach().clone() for weight in weights]
    numbers = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in weights:
            is_rising = torch.rand(weight.shape, generator=numbers) < _RISING
            # Exact in every type, and other for each value: nothing cancels out.
            weight.mul_(torch.where(is_rising, 2.0, 0.5).to(weight.device))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, values in zip(weights, kept, strict=True):
                weight.copy_(values)


@torch.no_grad()
def _disturb(parameters: list[nn.Parameter]) -> None:
    numbers = torch.Generator().manual_seed(1)
    for parameter in filter(_has_fractions, parameters):
        noise = torch.randn(parameter.shape, generator=numbers)
        parameter.add_(noise.to(parameter.device, parameter.dtype), alpha=0.1)


def _has_fractions(parameter: Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()
