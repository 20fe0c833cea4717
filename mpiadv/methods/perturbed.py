"""The gradient at weights that are moved up the loss: adversarial weight perturbation."""

import torch
from torch import Tensor

from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import Learned, OrdinaryStep
from mpiadv.models.modes import buffers_kept

_TINY = 1e-20
"""Keeps directions of no length finite, as in the code of Wu et al."""


class PerturbedStep(OrdinaryStep):
    """The gradient at weights that are moved up the loss: adversarial weight perturbation.

    Each tensor w of more than one dimension is moved by gamma |w| g / |g|, where g is the gradient
    of the objective on the same batch: Wu, Xia and Wang 2020, "Adversarial Weight Perturbation
    Helps Robust Generalization", algorithm 1. The optimiser then steps from the weights as they
    were; in the authors' code it steps first, so that weight decay is of the moved ones. Statistics
    of batch norm are moved once, by the second pass.
    """

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        if self.steps_done < self._parts.config.awp_from_step:
            return super().gradient(ticket, batch, settings)
        self.model.train()
        with buffers_kept(self.model):
            super().gradient(ticket, batch, settings)
        weights = [p for p in self.model.parameters() if p.dim() > 1 and p.grad is not None]
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.add_(self._uphill(weight))
        try:
            return super().gradient(ticket, batch, settings)
        finally:
            with torch.no_grad():
                for weight, before in zip(weights, kept, strict=True):
                    weight.copy_(before)

    def _uphill(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        gradient, gamma = weight.grad, self._parts.config.awp_gamma
        length, slope = (torch.linalg.vector_norm(each) for each in (weight, gradient))
        return gradient.mul(gamma * length / (slope + _TINY))
