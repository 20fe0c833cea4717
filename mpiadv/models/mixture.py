"""Two sets of batch norm in one network, for natural and for adversarial images.

Xie and Yuille 2020, "Intriguing Properties of Adversarial Training at Scale", section 4.2; AdvProp
is Xie et al. 2020, "Adversarial Examples Improve Image Recognition". Statistics and affine
parameters are both doubled. All passes are through the adversarial set but those within
`natural_branch`, so attacks and messages need not know.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpiadv.process.errors import UserError


class MixtureBatchNorm(nn.Module):
    """A batch norm for adversarial images, as it was, and a copy of it for natural ones."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.adversarial = layer
        self.natural = copy.deepcopy(layer)
        self.is_natural = False

    def forward(self, features: Tensor) -> Tensor:
        branch = self.natural if self.is_natural else self.adversarial
        normalized: Tensor = branch(features)
        return normalized


class NaturalBranch(nn.Module):
    """A model as it judges through the batch norm of natural images; it shares all its tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with natural_branch(self.model):
            logits: Tensor = self.model(images)
        return logits


def with_mixture(model: nn.Module, name: str) -> nn.Module:
    """The model, each batch norm in it doubled.

    Raises:
        UserError: it has none.
    """
    places = [
        (parent, key)
        for parent in model.modules()
        for key, layer in parent.named_children()
        if isinstance(layer, _BatchNorm)
    ]
    if not places:
        raise UserError(
            f"model.mixture_batch_norm doubles batch norm, and model {name!r} has none: use "
            "another model (digits has it with model.arguments.batch_norm=true), or "
            "model.mixture_batch_norm=false"
        )
    for parent, key in places:
        setattr(parent, key, MixtureBatchNorm(getattr(parent, key)))
    return model


def has_mixture(model: nn.Module) -> bool:
    """Whether natural images have a batch norm of their own in it."""
    return any(isinstance(layer, MixtureBatchNorm) for layer in model.modules())


@contextmanager
def natural_branch(model: nn.Module) -> Iterator[None]:
    """All passes within are through the batch norm of natural images, where there is one."""
    layers = [layer for layer in model.modules() if isinstance(layer, MixtureBatchNorm)]
    before = [layer.is_natural for layer in layers]
    for layer in layers:
        layer.is_natural = True
    try:
        yield
    finally:
        for layer, was_natural in zip(layers, before, strict=True):
            layer.is_natural = was_natural


def by_branch(model: nn.Module, images: Tensor, num_natural: int) -> Tensor:
    """Logits [N, K] of images [N, C, H, W], of which the first so many are natural.

    Where the model has two sets of batch norm, they pass through theirs first, then the others.
    """
    if not num_natural or not has_mixture(model):
        logits: Tensor = model(images)
        return logits
    with natural_branch(model):
        natural: Tensor = model(images[:num_natural])
    if num_natural == len(images):
        return natural
    return torch.cat([natural, model(images[num_natural:])])
