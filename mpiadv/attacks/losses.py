"""The losses that attacks climb, by name. They know no model and no attack."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mpiadv.attacks.climb import LossFunction, summed_cross_entropy


def summed_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best wrong logit less the correct one, summed over the batch: positive where misclassified.

    Unlike cross-entropy it keeps its slope where the model is sure of itself: Carlini and Wagner
    2017, "Towards Evaluating the Robustness of Neural Networks", section V, f6.
    """
    # A mask instead of gather and scatter, whose gradients add up in no fixed order on a GPU.
    classes = torch.arange(logits.shape[1], device=logits.device)
    is_label = labels[:, None] == classes
    correct = torch.where(is_label, logits, 0).sum(dim=1)
    wrong = logits.masked_fill(is_label, float("-inf")).amax(dim=1)
    return (wrong - correct).sum()


LOSSES: Mapping[str, LossFunction] = {
    "ce": summed_cross_entropy,
    "margin": summed_margin,
}
