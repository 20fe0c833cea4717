"""Activation functions by name, and activations that are computed twice instead of kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mpiadv.models.mixture import MixtureBatchNorm
from mpiadv.models.modes import buffers_kept
from mpiadv.process.errors import UserError

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
}
"""SiLU is smooth, which robust training gains from: Xie et al. 2020, "Smooth Adversarial
Training"."""


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of a name; raises UserError where there is none."""
    if name not in ACTIVATIONS:
        raise UserError(f"activation={name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def recomputed(block: nn.Module, features: Tensor) -> Tensor:
    """What `block` makes of `features`, its inner activations computed anew for the gradient.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", by torch's own checkpointing.
    The bits are those of a plain pass: the second one moves no statistics of batch norm.
    """
    made: Tensor = checkpoint(
        block, features, use_reentrant=False, preserve_rng_state=False,
        context_fn=partial(_contexts, block),
    )  # fmt: skip
    return made


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass, and around the second, which is to take the branches of the first."""
    mixed = [layer for layer in block.modules() if isinstance(layer, MixtureBatchNorm)]
    return nullcontext(), _again(block, {layer: layer.is_natural for layer in mixed})


@contextmanager
def _again(block: nn.Module, branches: Mapping[MixtureBatchNorm, bool]) -> Iterator[None]:
    before = {layer: layer.is_natural for layer in branches}
    for layer, is_natural in branches.items():
        layer.is_natural = is_natural
    try:
        with buffers_kept(block):
            yield
    finally:
        for layer, was_natural in before.items():
            layer.is_natural = was_natural
