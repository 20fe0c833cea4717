"""Single-step training whose gradients are kept aligned: GradAlign."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.methods.objective import Batch, Loss, Objective
from mpiadv.models.modes import buffers_kept
from mpiadv.settings import ObjectiveConfig


def grad_align(config: ObjectiveConfig) -> Objective:
    """Cross-entropy on adversarial images, and how far gradients turn within the ball.

    CE(x') + beta (1 - cos(g(x), g(x + u))), mean over images, where g is the gradient of the
    cross-entropy by the pixels and u uniform in the ball: Andriushchenko and Flammarion 2020,
    "Understanding and Improving Fast Adversarial Training", section 4. Its gradient by the weights
    goes through both g; statistics of batch norm are moved by the adversarial images alone.
    """

    def function(model: nn.Module, batch: Batch) -> Loss:
        assert batch.natural is not None and batch.nearby is not None
        logits = model(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=config.label_smoothing)
        with buffers_kept(model):
            here, there = (
                _slope(model, images, batch.labels) for images in (batch.natural, batch.nearby)
            )
        turned = 1 - F.cosine_similarity(here, there).mean()
        return Loss(total=loss + config.beta * turned, logits=logits.detach())

    return Objective(function=function, needs_natural=True, needs_nearby=True)


def _slope(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy at `images`: [N, pixels], with a graph of its own."""
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, images, create_graph=True)
    return slope.flatten(1)
