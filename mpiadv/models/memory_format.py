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
from mpiadv.models.trial import few_images, moved, on_trial
from mpiadv.process.errors import UserError, origin_of
from mpiadv.settings import MemoryFormat, Precision

FEWEST_PIXELS = 256
"""In smaller images nothing is gained: what a layer costs to call is more than its work."""

TOLERANCES = {False: 0.02, True: 0.1}
"""How far logits and gradients may be from those of before, in units of their length, in evaluation
and in training mode: rounding, which turns some rectifiers over, and which statistics magnify."""

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
"""What they draw goes by how features lie; without them training mode can be compared."""

_Looked = tuple[Tensor, Tensor]
_RAISED = (Exception, SystemExit)


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
    `build` makes, on the CPU, is tried. "auto" takes no model for able that could not be seen to
    compute the same: one that is random in evaluation mode, say, or that fails on few images. One
    that is random in training mode, by more than layers of dropout, is seen in evaluation mode.

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
    misfit, is_seen = _compared(model, image_shape)
    if misfit is None and (is_seen or wanted == "channels_last"):
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
        each.to(memory_format=torch.channels_last) if _has_channels(each) else each
        for each in given
    )


def _has_channels(each: object) -> bool:
    return isinstance(each, Tensor) and each.dim() == 4


def _compared(model: nn.Module, image_shape: ImageShape) -> tuple[str | None, bool]:
    """Why a model cannot have channels last, if it cannot; and whether it was seen that it can."""
    images = few_images(model, image_shape)
    modes = (False, True)
    with on_trial(model):
        before = [_seen(model, images, is_training) for is_training in modes]
        other_draws = [_seen(model, images, is_training, seed=1) for is_training in modes]
        try:
            lay_out(model, "channels_last")
        except _RAISED as error:  # whatever torch has against it
            return f"fails: {origin_of(error)}", True
        after = [_seen(model, images, is_training) for is_training in modes]
    misfit, is_seen = None, True
    for is_training, one, other, then in zip(modes, before, other_draws, after, strict=True):
        tolerance = TOLERANCES[is_training]
        if isinstance(one, BaseException) or not _is_finite(one):
            is_seen = False
        elif isinstance(then, BaseException):
            return f"fails: {origin_of(then)}", True
        elif isinstance(other, BaseException) or not _are_close(one, other, tolerance):
            is_seen &= is_training  # random while it trains: evaluation mode has to do
        elif not _are_close(one, then, tolerance):
            misfit = "computes something else"
    return misfit, is_seen


def _seen(
    model: nn.Module, images: Tensor, is_training: bool, seed: int = 0
) -> _Looked | Exception | SystemExit:
    """Logits of images and their gradient on weights that have moved, or what a model raises."""
    images = images.clone().requires_grad_()
    try:
        with moved(model), in_mode(model, is_training), buffers_kept(model):
            for layer in model.modules():
                if isinstance(layer, _DROPOUTS):
                    layer.eval()
            seed_streams(seed, images.device)
            logits = model(images)
            (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    except _RAISED as error:  # of a user's code; if it fails in any format, its trial tells
        return error
    return logits.detach(), gradient


def _is_finite(seen: _Looked) -> bool:
    return all(bool(each.isfinite().all()) for each in seen)


def _are_close(one: _Looked, other: _Looked, tolerance: float) -> bool:
    return all(
        float((first - second).norm()) <= tolerance * float(first.norm())
        for first, second in zip(one, other, strict=True)
    )
