"""The losses that attacks climb, by name. They know no model and no attack."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_PROBABILITY = 1e-8
"""Of the natural prediction, where probabilities of zero would make slopes NaN."""


@dataclass(frozen=True, kw_only=True)
class AttackLoss:
    """What an attack climbs.

    Attributes:
        name: for reports.
        function: from logits float32 [N, K] and what they are measured against to one number, a
            sum over samples, so that no image's gradient depends on the others.
        needs_natural: whether that is the natural images' logits, float32 [N, K]; else it is the
            labels, int64 [N], or with `takes_targets` probabilities, float32 [N, K].
        takes_targets: whether labels may be mixed.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    needs_natural: bool = False
    takes_targets: bool = False


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over the batch."""
    return F.cross_entropy(logits, labels, reduction="sum")


def is_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Where the label's class is, bool [N, K].

    A mask instead of gather and scatter, whose gradients add up in no fixed order on a GPU.
    """
    return labels[:, None] == torch.arange(logits.shape[1], device=logits.device)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Best wrong logit less the correct one, float32 [N]: positive where misclassified.

    Unlike cross-entropy it keeps its slope where the model is sure of itself: Carlini and Wagner
    2017, "Towards Evaluating the Robustness of Neural Networks", section V, f6.
    """
    labelled = is_label(logits, labels)
    correct = torch.where(labelled, logits, 0).sum(dim=1)
    wrong = logits.masked_fill(labelled, float("-inf")).amax(dim=1)
    return wrong - correct


def summed_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """`margins`, summed over the batch."""
    return margins(logits, labels).sum()


def summed_kl(logits: Tensor, natural: Tensor) -> Tensor:
    """Divergence KL(p || p') of predictions p' from the natural ones p, summed over the batch.

    Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy",
    equation 5, with the divergence of its authors' code. Both are logits, and may carry gradients.
    """
    expected = natural.softmax(dim=1).clamp(min=SMALLEST_PROBABILITY)
    # kl_div takes log-probabilities first: the adversarial side goes first here.
    return F.kl_div(logits.log_softmax(dim=1), expected, reduction="sum")


def summed_squares(logits: Tensor, natural: Tensor) -> Tensor:
    """Squared distance of predictions from the natural ones, summed over classes and batch.

    Pang et al. 2022, "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition",
    section 4. Both are logits, and may carry gradients.
    """
    return (logits.softmax(dim=1) - natural.softmax(dim=1)).square().sum()


LOSSES: Mapping[str, AttackLoss] = {
    "ce": AttackLoss(name="ce", function=summed_cross_entropy, takes_targets=True),
    "margin": AttackLoss(name="margin", function=summed_margin),
    "kl": AttackLoss(name="kl", function=summed_kl, needs_natural=True, takes_targets=True),
    "squares": AttackLoss(
        name="squares", function=summed_squares, needs_natural=True, takes_targets=True
    ),
}
