"""What training minimises, by name. Knows no ticket and no communicator."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks.losses import margins
from mpiadv.methods.aligned import grad_align
from mpiadv.methods.objective import Batch, Loss, Objective
from mpiadv.methods.paired import alp, mart, score, trades
from mpiadv.models.mixture import by_branch
from mpiadv.settings import ObjectiveConfig
from mpiadv.settings.registry import find_registered


def adversarial(config: ObjectiveConfig) -> Objective:
    """Mean cross-entropy on the images as crafted: Madry et al. 2018, equation 2.1."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)

    return _of_attacked(loss, climb="ce", takes_targets=True)


def margin(config: ObjectiveConfig) -> Objective:
    """How far the right logit is from being the largest by 1, mean over the images as crafted.

    max(0, 1 + best wrong logit - right one): Crammer and Singer 2001, "On the Algorithmic
    Implementation of Multiclass Kernel-based Vector Machines", section 2.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return (1 + margins(logits, labels)).relu().mean()

    return _of_attacked(loss, climb="margin")


def _of_attacked(
    loss: Callable[[Tensor, Tensor], Tensor], *, climb: str, takes_targets: bool = False
) -> Objective:
    def function(model: nn.Module, batch: Batch) -> Loss:
        # Autocast may hand over bfloat16 logits: the loss is always taken in float32.
        logits = by_branch(model, batch.images, batch.num_clean).float()
        return Loss(total=loss(logits, batch.goal), logits=logits.detach())

    return Objective(function=function, climb=climb, takes_targets=takes_targets)


OBJECTIVES: Mapping[str, Callable[[ObjectiveConfig], Objective]] = {
    "adversarial": adversarial,
    "trades": trades,
    "mart": mart,
    "alp": alp,
    "score": score,
    "margin": margin,
    "grad_align": grad_align,
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
