"""Objectives of natural images and the adversarial ones made of them.

Natural images pass through the model first, then the adversarial ones, so batch norm takes
statistics of each by itself. Gradients go through both predictions. Images that stay clean count as
pairs of the same image twice.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks.losses import is_label, summed_kl, summed_squares
from mpiadv.methods.objective import Batch, Loss, Objective
from mpiadv.models.mixture import by_branch
from mpiadv.settings import ObjectiveConfig

_TINY = 1e-12
"""Keeps the logarithms of MART finite, as in its authors' code."""

Pairwise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits of natural and adversarial images, float32 [N, K], and their goal to a loss []."""


def trades(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on natural images, and how far the adversarial predictions are from theirs.

    CE(x) + beta / N * sum KL(p(x) || p(x')): Zhang et al. 2019, "Theoretically Principled Trade-off
    between Robustness and Accuracy", equation 5 and algorithm 1, as in the authors' code, where the
    natural images pass twice.
    """

    def loss(natural: Tensor, attacked: Tensor, goal: Tensor) -> Tensor:
        divergence = summed_kl(attacked, natural) / len(goal)
        return _cross_entropy(config, natural, goal) + config.beta * divergence

    return _paired(loss, climb="kl", start="gaussian")


def mart(config: ObjectiveConfig) -> Objective:
    """Cross-entropy with a margin, and a divergence that counts where natural images are missed.

    CE(x') - log(1 - p'_best_wrong) + beta / N * sum KL(p(x) || p(x')) (1 - p_y(x)): Wang et al.
    2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", section
    3.2, with the small numbers of the authors' code, where the weight has a gradient too.
    """

    def loss(natural: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        expected, found = natural.softmax(dim=1), attacked.softmax(dim=1)
        labelled = is_label(attacked, labels)
        wrong = found.masked_fill(labelled, -1.0).amax(dim=1)
        boosted = F.cross_entropy(attacked, labels) - (1.0001 - wrong + _TINY).log().mean()
        right = torch.where(labelled, expected, 0).sum(dim=1)
        divergence = F.kl_div((found + _TINY).log(), expected, reduction="none").sum(dim=1)
        return boosted + config.beta * (divergence * (1.0000001 - right)).mean()

    return _paired(loss, climb="ce", start="gaussian", takes_targets=False)


def alp(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on both, and how far the logits of a pair are from each other.

    (CE(x) + CE(x')) / 2 + beta * mean (z(x) - z(x'))^2: Kannan et al. 2018, "Adversarial Logit
    Pairing", section 3.
    """

    def loss(natural: Tensor, attacked: Tensor, goal: Tensor) -> Tensor:
        both = sum(_cross_entropy(config, logits, goal) for logits in (natural, attacked))
        return both / 2 + config.beta * F.mse_loss(attacked, natural)

    return _paired(loss, climb="ce", start="uniform")


def score(config: ObjectiveConfig) -> Objective:
    """As TRADES, with squared errors of probabilities: local errors that obey the triangle.

    sum_k (p(x) - y)^2 + beta * sum_k (p(x) - p(x'))^2, means over images: Pang et al. 2022,
    "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition", section 4, from uniform
    starts as in the authors' code.
    """

    def loss(natural: Tensor, attacked: Tensor, goal: Tensor) -> Tensor:
        error = (natural.softmax(dim=1) - _smoothed(config, natural, goal)).square().sum()
        return (error + config.beta * summed_squares(attacked, natural)) / len(goal)

    return _paired(loss, climb="squares", start="uniform")


def _paired(loss: Pairwise, *, climb: str, start: str, takes_targets: bool = True) -> Objective:
    def function(model: nn.Module, batch: Batch) -> Loss:
        assert batch.natural is not None, "batches of this objective come with natural images"
        natural = by_branch(model, batch.natural, len(batch.natural)).float()
        attacked = by_branch(model, batch.images, batch.num_clean).float()
        return Loss(total=loss(natural, attacked, batch.goal), logits=attacked.detach())

    return Objective(
        function=function,
        needs_natural=True,
        takes_targets=takes_targets,
        climb=climb,
        start=start,
    )


def _cross_entropy(config: ObjectiveConfig, logits: Tensor, goal: Tensor) -> Tensor:
    return F.cross_entropy(logits, goal, label_smoothing=config.label_smoothing)


def _smoothed(config: ObjectiveConfig, logits: Tensor, goal: Tensor) -> Tensor:
    """Probabilities to learn: float32 [N, K]; of the others each has `label_smoothing` / K."""
    smoothing, classes = config.label_smoothing, logits.shape[1]
    targets = goal if goal.is_floating_point() else is_label(logits, goal)
    return targets * (1 - smoothing) + smoothing / classes
