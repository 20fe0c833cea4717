"""What training minimises, by name. Knows no ticket and no communicator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks.losses import summed_kl
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
    """From a model and a batch to the loss.

    Attributes:
        function: the loss of a model in training mode on a batch.
        needs_natural: whether it reads `batch.natural`.
        climb: name of the loss that its attacks climb, where nothing else is said.
        start: name of their start, likewise.
    """

    function: Callable[[nn.Module, Batch], Loss]
    needs_natural: bool = False
    climb: str = "ce"
    start: str = "uniform"

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        return self.function(model, batch)


def adversarial_cross_entropy(model: nn.Module, batch: Batch) -> Loss:
    """Mean cross-entropy on the images as crafted: Madry et al. 2018, equation 2.1."""
    # Autocast may hand over bfloat16 logits: the loss is always taken in float32.
    logits = model(batch.images).float()
    return Loss(total=F.cross_entropy(logits, batch.labels), logits=logits.detach())


def trades(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on natural images, and how far the adversarial predictions are from theirs.

    CE(x) + beta / N * sum KL(p(x) || p(x')), with gradients through both predictions: Zhang et al.
    2019, "Theoretically Principled Trade-off between Robustness and Accuracy", equation 5 and
    algorithm 1. The natural images pass through the model first, then the adversarial ones, so
    batch norm takes statistics of each by itself, as in the authors' code, where the natural ones
    pass twice. Images that stay clean count as natural ones without divergence.
    """

    def function(model: nn.Module, batch: Batch) -> Loss:
        assert batch.natural is not None, "batches of this objective come with natural images"
        natural, attacked = (model(images).float() for images in (batch.natural, batch.images))
        divergence = summed_kl(attacked, natural) / len(batch.labels)
        total = F.cross_entropy(natural, batch.labels) + config.beta * divergence
        return Loss(total=total, logits=attacked.detach())

    return Objective(function=function, needs_natural=True, climb="kl", start="gaussian")


OBJECTIVES: Mapping[str, Callable[[ObjectiveConfig], Objective]] = {
    "adversarial": lambda config: Objective(function=adversarial_cross_entropy),
    "trades": trades,
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
