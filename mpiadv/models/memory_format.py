"""How a model's weights and features lie in memory: convolutions are faster with channels last.

What is computed is the same but for the order in which sums are taken: bits depend on it. So all
ranks choose alike, by what the configuration says and the kind of device.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from mpiadv.models.check import ImageShape
from mpiadv.models.modes import evaluation_mode, parameters_frozen
from mpiadv.models.random_streams import streams_kept

MemoryFormat = Literal["contiguous", "channels_last"]

FEWEST_PIXELS = 256
"""In smaller images nothing is gained: what a layer costs to call is more than its work."""

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_CPU = torch.device("cpu")


def choose_format(
    wanted: Literal["auto"] | MemoryFormat,
    build: Callable[[], nn.Module],
    image_shape: ImageShape,
    *,
    device: torch.device,
    is_float32: bool,
) -> MemoryFormat:
    """The format that is wanted; for "auto" channels last, where that is faster and the model can.

    It is faster for convolutions of images of `FEWEST_PIXELS` or more; on GPUs only in bfloat16,
    which their convolutions take so. A model that flattens features by `view` cannot: one that
    `build` makes, on the CPU, is tried.
    """
    if wanted != "auto":
        return wanted
    _, height, width = image_shape
    if height * width < FEWEST_PIXELS or (device.type != "cpu" and is_float32):
        return "contiguous"
    model = build()
    convolves = any(isinstance(layer, _CONVOLUTIONS) for layer in model.modules())
    return "channels_last" if convolves and _can(model, image_shape) else "contiguous"


def lay_out(model: nn.Module, memory_format: MemoryFormat) -> nn.Module:
    """The same model, its weights laid out anew, and images too, whenever it is given any."""
    if memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)
        model.register_forward_pre_hook(_with_channels_last)
    return model


def _with_channels_last(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *others = given
    return images.to(memory_format=torch.channels_last), *others


def _can(model: nn.Module, image_shape: ImageShape) -> bool:
    """Whether the model takes images, and gives them a gradient, with channels last."""
    images = torch.zeros(2, *image_shape, requires_grad=True)
    try:
        lay_out(model, "channels_last")
        with streams_kept(_CPU), evaluation_mode(model), parameters_frozen(model):
            torch.autograd.grad(model(images).sum(), images)
    except Exception:  # whatever a user's code raises; if it fails otherwise too, its trial tells
        return False
    return True
