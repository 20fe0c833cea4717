"""Single-step training whose gradients are kept aligned: GradAlign."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mpiadv.methods.objective import Batch, Loss, Objective
from mpiadv.models.mixture import by_branch
from mpiadv.settings import ObjectiveConfig


def grad_align(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on adversarial images, and how far gradients turn within the ball.

    CE(x') + beta (1 - cos(g(x), g(x + u))), mean over images, where g is the gradient of the
    cross-entropy by the pixels and u uniform in the ball: Andriushchenko and Flammarion 2020,
    "Understanding and Improving Fast Adversarial Training", section 4. As in the authors' code its
    gradient by the weights goes through g(x + u) alone, and images where either g is zero are left
    out. Statistics of batch norm are moved by the adversarial images alone.
    """

    def function(model: nn.Module, batch: Batch) -> Loss:
        assert batch.natural is not None and batch.nearby is not None
        logits = by_branch(model, batch.images, batch.num_clean).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=config.label_smoothing)
        here = _slope(model, batch.natural, batch.labels, create_graph=False)
        there = _slope(model, batch.nearby, batch.labels, create_graph=True)
        total = loss + config.beta * _turned(here, there)
        return Loss(total=total, logits=logits.detach())

    return Objective(function=function, needs_natural=True, needs_nearby=True)


def _slope(model: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool) -> Tensor:
    """The gradient of the cross-entropy at `images`: [N, pixels]; buffers are left as they are."""
    images = images.detach().requires_grad_()
    # Copies: a graph that has seen the buffers themselves would not stand their being put back.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits: Tensor = functional_call(model, buffers, (images,))
    loss = F.cross_entropy(logits.float(), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, images, create_graph=create_graph)
    return slope.flatten(1)


def _turned(here: Tensor, there: Tensor) -> Tensor:
    """1 - cosine of the rows of two [N, pixels], mean over those where neither is zero: []."""
    lengths = [each.detach().abs().amax(dim=1, keepdim=True) for each in (here, there)]
    is_there = ((lengths[0] > 0) & (lengths[1] > 0)).squeeze(1)
    # Squares of small gradients underflow: bring the largest pixel to 1 before measuring.
    scaled = [e / torch.where(a > 0, a, 1) for e, a in zip((here, there), lengths, strict=True)]
    turned = torch.where(is_there, 1 - F.cosine_similarity(scaled[0], scaled[1]), 0)
    return turned.sum() / is_there.sum().clamp(min=1)
