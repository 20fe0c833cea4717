"""What an objective is: from a model and a batch to a number. Knows no particular one."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step consumes.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1]; adversarial, but for the clean part at the front.
        labels: int64 [N].
        targets: float32 [N, K], probabilities that stand for the labels where images are mixed.
        natural: the same images before the attack, for objectives that need them.
        nearby: one random place in the ball of each natural image, likewise.
        num_clean: how many of `images`, at the front, are natural.
        notes: int64 [N], those of `attacks.Stand`, for attacks that keep any and go on elsewhere.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None = None
    natural: Tensor | None = None
    nearby: Tensor | None = None
    num_clean: int = 0
    notes: Tensor | None = None

    @property
    def goal(self) -> Tensor:
        """What predictions are to be: the targets, or else the labels."""
        return self.labels if self.targets is None else self.targets


@dataclass(frozen=True, kw_only=True)
class Loss:
    """`total`: the number to minimise, float32 []. `logits`: detached, float32 [N, K]."""

    total: Tensor
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class Objective:
    """From a model and a batch to the loss.

    Attributes:
        function: the loss of a model in training mode on a batch.
        needs_natural: whether it reads `batch.natural`.
        needs_nearby: whether it reads `batch.nearby`.
        takes_targets: whether it reads `batch.goal`, so that labels may be mixed.
        climb: name of the loss that its attacks climb, where nothing else is said.
        start: name of their start, likewise.
    """

    function: Callable[[nn.Module, Batch], Loss]
    needs_natural: bool = False
    needs_nearby: bool = False
    takes_targets: bool = False
    climb: str = "ce"
    start: str = "uniform"

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        return self.function(model, batch)
