"""Weights in the type that autocast would give them pass after pass. Knows no attack."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mpiadv.attacks.climb import Climb
from mpiadv.models.check import ImageShape
from mpiadv.models.memory_format import lay_out
from mpiadv.models.modes import in_mode
from mpiadv.models.trial import few_images, moved, on_trial
from mpiadv.settings import MemoryFormat, Precision

_CAST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
"""Layers whose weights autocast to bfloat16 casts before anything else is done with them."""

_CASTING = {
    functional.linear, functional.conv1d, functional.conv2d, functional.conv3d,
    functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d,
}  # fmt: skip
"""The functions that these layers give their weights to."""


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

    It is undone where the model does something else with a weight than to convolve or multiply by
    it, or where logits of images [C, H, W], or their gradient, are not bit by bit those of
    autocast in either mode.
    """
    images, weights = few_images(model, image_shape), list(_cast_alone(model))
    own, uses = [weight.data for weight in weights], _Uses(weights)
    with on_trial(model):
        try:
            before = _seen(model, images, uses)
            for weight in weights:
                weight.data = weight.data.to(torch.bfloat16)
            after = _seen(model, images, nullcontext())
            is_same = uses.are_usual and all(map(torch.equal, before, after))
        except (Exception, SystemExit):  # whatever a user's model raises of such weights
            is_same = False
        if not is_same:
            for weight, data in zip(weights, own, strict=True):
                weight.data = data
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


class _Uses(TorchFunctionMode):
    """Whether weights are given to no function but those that autocast casts them for.

    What scripted code does with them is not seen.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        self.are_usual = True
        self._weights = {id(weight) for weight in weights}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # As of a shape; what becomes of a tensor that is got so would not be seen.
        is_fact = getattr(func, "__name__", "") == "__get__" and not isinstance(result, Tensor)
        if not is_fact and func not in _CASTING:
            self.are_usual &= not any(map(self._has_weight, (*args, *kwargs.values())))
        return result

    def _has_weight(self, given: object) -> bool:
        if isinstance(given, list | tuple):
            return any(map(self._has_weight, given))
        return id(given) in self._weights


def _seen(model: nn.Module, images: Tensor, watch: AbstractContextManager[Any]) -> list[Tensor]:
    """Logits and gradients, in evaluation and in training mode, on weights that have moved."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    climb = Climb(
        model=model, precision="bfloat16", loss=None, labels=labels, natural=images, natural_seed=0
    )
    seen: list[Tensor] = []
    for is_training in (False, True):
        with moved(model), in_mode(model, is_training), watch:
            slope = climb.slope(images, seed=0)
        seen += slope.logits, slope.gradient
    return seen
