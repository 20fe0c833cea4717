"""The slope that an attack climbs. Knows no attack; leaves the model as it finds it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks.losses import LOSSES, AttackLoss
from mpiadv.data.source import row_by_row
from mpiadv.models.execution import Executor, eagerly
from mpiadv.models.mixture import natural_branch
from mpiadv.models.modes import buffers_kept
from mpiadv.models.random_streams import seed_streams
from mpiadv.settings import Precision


@contextmanager
def mixed_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """Autocast to bfloat16 on `device`; for "float32" autocast is off, also inside another one."""
    enabled = precision == "bfloat16"
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            yield
    finally:
        # Inside another autocast torch keeps weights as they were cast first, trained or not.
        torch.clear_autocast_cache()


def forward(
    model: Callable[[Tensor], Tensor], images: Tensor, *, precision: Precision, seed: int
) -> Tensor:
    """Logits float32 [N, K] of images float32 [N, C, H, W] in [0, 1].

    `seed` is of whatever the model draws at random, in evaluation mode too: some models do.
    """
    seed_streams(seed, images.device)
    return _logits(model, images, precision)


def _logits(model: Callable[[Tensor], Tensor], images: Tensor, precision: Precision) -> Tensor:
    with mixed_precision(images.device, precision):
        logits = model(images)
    return logits.float()


def mean_magnitude(gradient: Tensor) -> Tensor:
    """L1 norm of each image's gradient, mean over images: float32 [N, C, H, W] to []."""
    return gradient.abs().sum(dim=(1, 2, 3)).mean()


class Slope(NamedTuple):
    """What an attack sees where it stands.

    `gradient` float32 [N, C, H, W] of the loss, `logits` float32 [N, K] that came with it, both
    detached, and the `labels` int64 [N].
    """

    gradient: Tensor
    logits: Tensor
    labels: Tensor


Look = Callable[[Tensor], Slope]
"""From images float32 [N, C, H, W] in [0, 1] to the slope there."""


@dataclass(kw_only=True, eq=False)
class Climb:
    """A batch and a loss, and the slope of it in a model's eyes.

    No gradients of weights are computed and no `.grad` is touched; in training mode buffers, as the
    statistics of batch norm, are left as they were. The loss is in float32.

    Attributes:
        model: from pixels to logits, in the mode that the caller chose.
        precision: "bfloat16" runs the model under autocast.
        loss: what is climbed; None: cross-entropy.
        labels: int64 [N].
        targets: float32 [N, K], probabilities to climb away from in their place, if any.
        natural: float32 [N, C, H, W] in [0, 1], read by losses that need the natural prediction.
        natural_seed: of what the model draws at random for that prediction.
        execute: how looks at the model are computed.
    """

    model: nn.Module
    precision: Precision
    loss: AttackLoss | None
    labels: Tensor
    natural: Tensor
    natural_seed: int
    targets: Tensor | None = None
    execute: Executor = eagerly
    _predicted: tuple[int, Tensor] | None = None
    _gradient: Tensor | None = None

    @property
    def magnitude(self) -> Tensor | None:
        """Mean magnitude of the gradient at the last look, float32 []; None before the first."""
        return None if self._gradient is None else mean_magnitude(self._gradient)

    def slope(self, images: Tensor, *, seed: int, version: int = 0) -> Slope:
        """The slope at `images`: float32 [N, C, H, W] in [0, 1].

        Args:
            images: as many as there are labels.
            seed: of what the model draws at random.
            version: of its parameters: the natural prediction is the same as long as they are.
        """
        loss = self.loss or LOSSES["ce"]
        goal = self.labels if self.targets is None else self.targets
        target = self._natural_logits(version) if loss.needs_natural else goal
        name = ("the slope of an attack", loss.function, self.precision, self.model.training)
        look = partial(_look, self.model, self.precision, loss.function)
        seed_streams(seed, images.device)
        gradient, logits = self.execute(name, look, images.detach(), target)
        assert gradient is not None and logits is not None
        # Sums over images that lie otherwise are taken in another order.
        self._gradient = row_by_row(gradient)
        return Slope(self._gradient, logits, self.labels)

    def losses(self, images: Tensor, *, seed: int) -> Tensor:
        """Cross-entropy at each of the images float32 [N, C, H, W]: float32 [N], no gradient."""
        with _unmoved(self.model), torch.no_grad():
            logits = forward(self.model, images, precision=self.precision, seed=seed)
        return F.cross_entropy(logits, self.labels, reduction="none")

    def looking(self, seeds: Iterator[int]) -> Look:
        """The slope with a seed of its own for each look, on parameters that stay the same."""
        return lambda images: self.slope(images, seed=next(seeds))

    def _natural_logits(self, version: int) -> Tensor:
        if self._predicted is None or self._predicted[0] != version:
            with _unmoved(self.model), natural_branch(self.model), torch.no_grad():
                logits = forward(
                    self.model, self.natural, precision=self.precision, seed=self.natural_seed
                )
            self._predicted = version, logits
        return self._predicted[1]


@dataclass(kw_only=True)
class ClimbView:
    """A climb as the steps of an attack see it.

    `seed`, of what the model draws, and `version`, of its parameters, are set before each step.
    """

    climb: Climb
    seed: int = 0
    version: int = 0

    def __call__(self, images: Tensor) -> Slope:
        return self.climb.slope(images, seed=self.seed, version=self.version)

    def losses(self, images: Tensor) -> Tensor:
        """As `Climb.losses`."""
        return self.climb.losses(images, seed=self.seed)


def _look(
    model: nn.Module,
    precision: Precision,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    target: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradient of the loss at `images`, and the logits, as in `Slope`."""
    images = images.detach().requires_grad_(True)
    with _unmoved(model), torch.enable_grad(), mixed_precision(images.device, "float32"):
        logits = _logits(model, images, precision)
        (gradient,) = torch.autograd.grad(loss(logits, target), images)
    return gradient, logits.detach()


def _unmoved(model: nn.Module) -> AbstractContextManager[None]:
    return buffers_kept(model) if model.training else nullcontext()
