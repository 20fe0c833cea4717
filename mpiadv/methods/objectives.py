"""What training minimises, by name. Knows no attack, no ticket and no communicator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.settings import ObjectiveConfig
from mpiadv.settings.registry import find_registered


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step consumes.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1]; adversarial, but for the clean part at the front.
        labels: int64 [N].
        natural: the same images before the attack, for objectives that need them.
    """

    images: Tensor
    labels: Tensor
    natural: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """`total`: the number to minimise, float32 []. `logits`: detached, float32 [N, K]."""

    total: Tensor
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class Objective:
    """From a model and a batch to the loss; `needs_natural`: whether it reads `batch.natural`."""

    function: Callable[[nn.Module, Batch], Loss]
    needs_natural: bool

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of `model` on `batch`, ready for `total.backward()`."""
        return self.function(model, batch)


def adversarial_cross_entropy(model: nn.Module, batch: Batch) -> Loss:
    """Mean cross-entropy on the images as crafted: Madry et al. 2018, equation 2.1."""
    # Autocast may hand over bfloat16 logits: the loss is always taken in float32.
    logits = model(batch.images).float()
    return Loss(total=F.cross_entropy(logits, batch.labels), logits=logits.detach())


def adversarial(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on adversarial images, and on the clean part as it is."""
    return Objective(function=adversarial_cross_entropy, needs_natural=False)


OBJECTIVES: Mapping[str, Callable[[ObjectiveConfig], Objective]] = {
    "adversarial": adversarial,
}


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config` names.

    Raises:
        UserError: no objective has that name.
    """
    return find_registered("objective", config.name, OBJECTIVES)(config)


def num_clean(config: ObjectiveConfig, batch_size: int) -> int:
    """How many images at the front of a batch stay natural: the nearest whole number."""
    return round(config.clean_fraction * batch_size)
