"""Weights in the type that autocast would give them pass after pass. Knows no attack."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mpiadv.attacks.climb import Climb, Precision
from mpiadv.models.memory_format import MemoryFormat, lay_out
from mpiadv.models.modes import device_of, evaluation_mode, parameters_frozen
from mpiadv.models.random_streams import streams_kept

_CAST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
"""Layers whose weights autocast to bfloat16 casts before anything else is done with them."""


_FEW = 2


def as_target(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    memory_format: MemoryFormat,
    precision: Precision,
) -> nn.Module:
    """The same model, made to be attacked and nothing else: laid out, its weights held cast."""
    lay_out(model, memory_format)
    if precision == "bfloat16":
        hold_cast(model, image_shape)
    return model


def hold_cast(model: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Hold the weights of convolutions and dense layers in bfloat16; whether that was done.

    It is undone where logits of images [C, H, W], or their gradient, are not bit by bit those of
    autocast: as where the model does something else with a weight, too. The trial is on weights
    that are not those of the beginning, of which a last layer of zeros would hide the others.
    """
    images = torch.rand(_FEW, *image_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device_of(model))
    layers, parameters = list(_cast_alone(model)), list(model.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    with streams_kept(images.device), evaluation_mode(model), parameters_frozen(model):
        try:
            _disturb(parameters)
            logits, gradient = _seen(model, images)
            for layer in layers:
                layer.to(torch.bfloat16)
            found = _seen(model, images)
        except Exception:  # whatever a user's model raises of weights of another type
            is_same = False
        else:
            is_same = torch.equal(logits, found[0]) and torch.equal(gradient, found[1])
            is_same = is_same and bool(gradient.any())
    cast = {id(each) for layer in layers for each in layer.parameters()} if is_same else set()
    for parameter, value in zip(parameters, kept, strict=True):
        parameter.data = value.bfloat16() if id(parameter) in cast else value
    return is_same


@torch.no_grad()
def _disturb(parameters: Sequence[nn.Parameter]) -> None:
    numbers = torch.Generator().manual_seed(1)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=numbers, dtype=parameter.dtype)
        parameter.add_(noise.to(parameter.device), alpha=0.1)


def _cast_alone(model: nn.Module) -> Iterator[nn.Module]:
    """Torch's own layers whose weights are no other layer's."""
    owners = Counter(
        id(parameter) for layer in model.modules() for parameter in layer.parameters(recurse=False)
    )
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        if type(layer) in _CAST and all(owners[id(parameter)] == 1 for parameter in own):
            yield layer


def _seen(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    climb = Climb(
        model=model, precision="bfloat16", loss=None, labels=labels, natural=images, natural_seed=0
    )
    slope = climb.slope(images, seed=0)
    return slope.logits, slope.gradient
