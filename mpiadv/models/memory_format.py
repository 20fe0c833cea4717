"""How a model's weights and features lie in memory: convolutions are faster with channels last.

What is computed is the same but for the order in which sums are taken: bits depend on it. So all
ranks choose alike, by what the configuration says and the kind of device.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mpiadv.models.check import ImageShape, name_of
from mpiadv.models.modes import buffers_kept, in_mode
from mpiadv.models.random_streams import seed_streams
from mpiadv.models.trial import few_images, on_trial
from mpiadv.process.errors import UserError, origin_of
from mpiadv.settings import MemoryFormat, Precision

FEWEST_PIXELS = 256
"""In smaller images nothing is gained: what a layer costs to call is more than its work."""

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
TOLERANCE = 1e-3
"""How far logits and gradients may be from those of before, in units of the largest: rounding."""


def choose_format(
    wanted: Literal["auto"] | MemoryFormat,
    build: Callable[[], nn.Module],
    image_shape: ImageShape,
    *,
    device: torch.device,
    precision: Precision,
) -> MemoryFormat:
    """The format that is wanted; for "auto" channels last, where that is faster and the model can.

    It is faster for convolutions of images of `FEWEST_PIXELS` or more; on GPUs only in bfloat16,
    which their convolutions take so. A model that flattens features by `view` cannot: one that
    `build` makes, on the CPU, is tried.

    Raises:
        UserError: channels last are wanted, and the model cannot.
    """
    if wanted == "contiguous" or (
        wanted == "auto" and _gains_nothing(image_shape, device, precision)
    ):
        return "contiguous"
    model = build()
    if wanted == "auto" and not any(isinstance(one, _CONVOLUTIONS) for one in model.modules()):
        return "contiguous"
    misfit = _misfit(model, image_shape)
    if misfit is None:
        return "channels_last"
    if wanted == "auto":
        return "contiguous"
    raise UserError(
        f"training.memory_format=channels_last: model {name_of(model)} {misfit}: use auto or "
        "contiguous"
    )


def _gains_nothing(image_shape: ImageShape, device: torch.device, precision: Precision) -> bool:
    _, height, width = image_shape
    return height * width < FEWEST_PIXELS or (device.type != "cpu" and precision == "float32")


def lay_out(model: nn.Module, memory_format: MemoryFormat) -> nn.Module:
    """The same model, its weights laid out so, and from now on whatever images it is given."""
    if memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)
        model.register_forward_pre_hook(_with_channels_last)
    return model


def _with_channels_last(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        each.to(memory_format=torch.channels_last) if _is_image(each) else each for each in given
    )


def _is_image(each: object) -> bool:
    return isinstance(each, Tensor) and each.dim() == 4


def _misfit(model: nn.Module, image_shape: ImageShape) -> str | None:
    """Why a model cannot have channels last; None where it can, or fails without them, too."""
    images = few_images(model, image_shape)
    with on_trial(model):
        before = [_seen(model, images, is_training) for is_training in (False, True)]
        other_seed = _seen(model, images, False, seed=1)
        try:
            lay_out(model, "channels_last")
        except Exception as error:  # whatever torch has against it
            return f"fails: {origin_of(error)}"
        after = [_seen(model, images, is_training) for is_training in (False, True)]
    for one, other in zip(before, after, strict=True):
        if isinstance(other, Exception) and not isinstance(one, Exception):
            return f"fails: {origin_of(other)}"
    # In training mode the statistics of two images magnify any rounding.
    is_random = not _close(before[0], other_seed)
    return None if is_random or _close(before[0], after[0]) else "computes something else"


def _seen(
    model: nn.Module, images: Tensor, is_training: bool, seed: int = 0
) -> tuple[Tensor, Tensor] | Exception:
    """Logits of images and their gradient, or what a model raises."""
    images = images.clone().requires_grad_()
    try:
        with in_mode(model, is_training), buffers_kept(model):
            seed_streams(seed, images.device)
            logits = model(images)
            (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    except Exception as error:  # of a user's code; if it fails in any format, its trial tells
        return error
    return logits.detach(), gradient


def _close(
    one: tuple[Tensor, Tensor] | Exception, other: tuple[Tensor, Tensor] | Exception
) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):
        return isinstance(one, Exception) and isinstance(other, Exception)
    return all(
        float((first - second).abs().max()) <= TOLERANCE * float(first.abs().max())
        for first, second in zip(one, other, strict=True)
    )
