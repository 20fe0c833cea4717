"""Which classifier a configuration names, built from a seed. Knows no data set and no training."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from mpiadv.models.bottleneck import BottleneckResNet
from mpiadv.models.check import (
    ImageShape,
    check_model,
    outputs_of_zeros,
    require_plain_tensors,
)
from mpiadv.models.flat import FlatState, fingerprint
from mpiadv.models.memory_format import choose_format, lay_out
from mpiadv.models.mixture import with_mixture
from mpiadv.models.modes import device_of, evaluation_mode, freeze, parameters_frozen
from mpiadv.models.normalized import normalized
from mpiadv.models.preact_resnet import PreActResNet
from mpiadv.models.random_streams import seed_streams, streams_kept
from mpiadv.models.small import digits, mnist
from mpiadv.models.timm_model import timm_builder
from mpiadv.models.torchvision_model import torchvision_builder
from mpiadv.models.wide_resnet import WideResNet
from mpiadv.process.errors import UserError, user_code
from mpiadv.settings import ModelConfig
from mpiadv.settings.registry import find_registered, import_dotted, is_dotted

__all__ = [
    "FlatState",
    "build_model",
    "check_model",
    "choose_format",
    "device_of",
    "evaluation_mode",
    "fingerprint",
    "freeze",
    "lay_out",
    "parameters_frozen",
]

Builder = Callable[..., nn.Module]

_CPU = torch.device("cpu")

REGISTERED: dict[str, Builder] = {
    "digits": digits,
    "mnist": mnist,
    "preact_resnet18": PreActResNet,
    "wide_resnet": WideResNet,
    "resnet": BottleneckResNet,
}


FROM_PACKAGES: Mapping[str, Callable[[str], Builder]] = {
    "torchvision:": torchvision_builder,
    "timm:": timm_builder,
}
"""What names of other packages' models begin with, to what makes their builders."""


def build_model(
    config: ModelConfig, *, num_classes: int, image_shape: ImageShape, seed: int
) -> nn.Module:
    """The classifier of a configuration, float32, on the CPU; the same bits for the same seed.

    It takes images: float32 [N, C, H, W] in [0, 1] and returns logits: [N, num_classes]. The
    global random generators, numpy's and Python's too, are left as they were.

    Raises:
        UserError: no such model, arguments that it refuses, images that it cannot take, tensors
            that cannot be written to, or no batch norm that could be doubled.
    """
    builder = _find_builder(config.name)
    with streams_kept(_CPU):
        seed_streams(seed, _CPU)
        model = _build(builder, config, num_classes, image_shape)
        with user_code(f"model {config.name!r} cannot be brought to the CPU in float32"):
            model.to(device="cpu", dtype=torch.float32)
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            # Sizes that are told by the first batch: its values do not matter.
            outputs_of_zeros(model, image_shape, num_images=2)
    require_plain_tensors(model, config.name)
    if config.mixture_batch_norm:
        with_mixture(model, config.name)
    if config.mean is None or config.std is None:
        return model
    return normalized(model, mean=config.mean, std=config.std, num_channels=image_shape[0])


def _find_builder(name: str) -> Builder:
    for prefix, builder in FROM_PACKAGES.items():
        if name.startswith(prefix):
            return builder(name)
    if is_dotted(name):
        return import_dotted("model", name)
    return find_registered("model", name, REGISTERED)


def _build(
    builder: Builder, config: ModelConfig, num_classes: int, image_shape: ImageShape
) -> nn.Module:
    with user_code(
        f"model {config.name!r} cannot be built with num_classes={num_classes}, image_shape="
        f"{image_shape} and arguments {config.arguments}"
    ):
        model = builder(num_classes=num_classes, image_shape=image_shape, **config.arguments)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model {config.name!r} returned {type(model).__name__}, expected a torch.nn.Module"
        )
    return model
