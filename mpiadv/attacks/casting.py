"""Weights in the type that autocast would give them pass after pass. Knows no attack."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mpiadv.attacks.climb import Climb
from mpiadv.models.check import ImageShape
from mpiadv.models.memory_format import lay_out
from mpiadv.models.modes import in_mode
from mpiadv.models.trial import few_images, on_trial
from mpiadv.settings import MemoryFormat, Precision

_CAST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
"""Layers whose weights autocast to bfloat16 casts before anything else is done with them."""


def as_target(
    model: nn.Module, image_shape: ImageShape, *, memory_format: MemoryFormat, precision: Precision
) -> nn.Module:
    """The same model, made to be attacked and nothing else: laid out, its weights held cast."""
    lay_out(model, memory_format)
    if precision == "bfloat16":
        hold_cast(model, image_shape)
    return model


def hold_cast(model: nn.Module, image_shape: ImageShape) -> bool:
    """Hold the weights of convolutions and dense layers in bfloat16; whether that was done.

    It is undone where logits of images [C, H, W], or their gradient, are not bit by bit those of
    autocast in either mode: as where the model does something else with a weight, too.
    """
    images, weights = few_images(model, image_shape), list(_cast_alone(model))
    with on_trial(model):
        try:
            before = _seen(model, images)
            _to(torch.bfloat16, weights)
            is_same = all(map(torch.equal, before, _seen(model, images)))
        except Exception:  # whatever a user's model raises of weights of another type
            is_same = False
        if not is_same:
            _to(torch.float32, weights)
    return is_same


def _cast_alone(model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of torch's own layers that are no other layer's."""
    owners = Counter(
        id(parameter) for layer in model.modules() for parameter in layer.parameters(recurse=False)
    )
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        if type(layer) in _CAST and all(owners[id(parameter)] == 1 for parameter in own):
            yield from own


def _to(dtype: torch.dtype, weights: list[nn.Parameter]) -> None:
    for weight in weights:
        weight.data = weight.data.to(dtype)


def _seen(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits and gradients, in evaluation and in training mode."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    climb = Climb(
        model=model, precision="bfloat16", loss=None, labels=labels, natural=images, natural_seed=0
    )
    seen: list[Tensor] = []
    for is_training in (False, True):
        with in_mode(model, is_training):
            slope = climb.slope(images, seed=0)
        seen += slope.logits, slope.gradient
    return seen
