"""What the trainer does with its batches, by name. Knows no message and no communicator.

A training step falls into two halves, so that several tickets, or several trainers, can come
between them: the gradient of a ticket, and what is done with the mean over the step's tickets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mpiadv.attacks import mixed_precision
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.averages import WeightAverage
from mpiadv.methods.objective import Batch, Objective
from mpiadv.models import device_of
from mpiadv.models.execution import Executor, eagerly
from mpiadv.models.modes import buffers_kept
from mpiadv.models.random_streams import seed_streams
from mpiadv.settings import TrainingConfig
from mpiadv.storage.run_folder import EMA, RAW


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the gradient of a ticket told, on its device: reading it waits for that.

    `loss`: the objective, float32 []. `accuracy`: on the adversarial images, 0 to 1, float32 [];
    NaN where there are none. `slope`: gradient of the loss, as the images; None unless asked for.
    """

    loss: Tensor
    accuracy: Tensor
    slope: Tensor | None = None


_READ = ("images", "labels", "targets", "natural", "nearby")
"""What objectives may read of a batch."""

_TINY = 1e-20
"""Keeps directions of no length finite, as in the code of Wu et al."""


class TrainingStep(Protocol):
    """Trains a model: `gradient` for each ticket of a step in their order, then `apply`, once.

    A step may assume that whoever calls it does nothing to the parameters, and that `apply` finds
    in their `.grad` the mean over the step's tickets of what `gradient` left there. It must keep to
    the following, so that neither the number of trainers nor an interruption changes a bit:

    - `gradient` changes `.grad` and buffers alone. What moves the weights for a while (AWP) puts
      them back before it returns.
    - What is random is seeded by the ticket.
    - What lasts from one ticket to another (the perturbation of FREE) is in `state_dict`.

    Where a step goes over its tickets several times with an update after each (FREE, DEAT), it gets
    the same tickets again after `apply`. All passes of one update (YOPO) belong into one
    `gradient`.
    """

    @property
    def model(self) -> nn.Module:
        """The model being trained."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """What is evaluated and saved: the model being trained as `RAW`, and its averages."""

    @property
    def steps_done(self) -> int:
        """How often `apply` has been called, in a run and those that it resumes."""

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        """Leave the gradient of a ticket's loss in `.grad`, in the place of what was there.

        Images that require a gradient ask for the `slope`. `settings` are those that the batch was
        crafted with, for steps that attack by themselves.
        """

    def apply(self) -> float:
        """Update the parameters by the gradient in `.grad`; returns the learning rate."""

    def state_dict(self) -> dict[str, Any]:
        """All that goes on from step to step, but the model: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, the model being in its own already.

        Raises:
            Exception: of any kind, if it is no state of this step.
        """


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What training steps are made of.

    `config`: the steps' own section. `num_clean`: how many images at the front of a batch are
    natural. `execute`: how gradients are computed.
    """

    config: TrainingConfig

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler
    seed: int
    num_clean: int
    average: WeightAverage | None = None
    execute: Executor = eagerly


class OrdinaryStep:
    """Objective, backward, optimiser, schedule, average: Madry et al. 2018.

    Steps that differ in their gradient alone override that.
    """

    def __init__(self, parts: Parts) -> None:
        self.model = parts.model
        self._parts = parts

    @property
    def models(self) -> Mapping[str, nn.Module]:
        average = self._parts.average
        return {RAW: self.model} | ({EMA: average.model} if average else {})

    @property
    def steps_done(self) -> int:
        return self._parts.schedule.last_epoch

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        self.model.train()
        seed_streams(seed_for(self._parts.seed, Purpose.DROPOUT, ticket), device_of(self.model))
        wants_slope = batch.images.requires_grad
        given = {name: t for name in _READ if (t := getattr(batch, name)) is not None}
        loss, accuracy, slope, *gradients = self._parts.execute(
            ("the training gradient", wants_slope),
            partial(self._pass, wants_slope, tuple(given)),
            *given.values(),
        )
        assert loss is not None and accuracy is not None
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        return Learned(loss=loss, accuracy=accuracy, slope=slope)

    def apply(self) -> float:
        rate = float(self._parts.optimizer.param_groups[0]["lr"])
        self._parts.optimizer.step()
        self._parts.schedule.step()
        if self._parts.average:
            self._parts.average.update()
        return rate

    def _pass(
        self, wants_slope: bool, names: tuple[str, ...], *given: Tensor
    ) -> list[Tensor | None]:
        """Forward and backward: what `Learned` has, in its order, and parameters' gradients."""
        parts, batch = self._parts, Batch(**dict(zip(names, given, strict=True)))
        images, labels = batch.images.detach().requires_grad_(wants_slope), batch.labels
        with mixed_precision(images.device, parts.config.precision):
            loss = parts.objective(self.model, replace(batch, images=images))
        parts.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        is_right = loss.logits.argmax(dim=1) == labels
        accuracy = is_right[parts.num_clean :].float().mean()
        gradients = (parameter.grad for parameter in self.model.parameters())
        return [loss.total.detach(), accuracy, images.grad, *gradients]

    def state_dict(self) -> dict[str, Any]:
        average = self._parts.average
        state = {
            "optimizer": self._parts.optimizer.state_dict(),
            "schedule": self._parts.schedule.state_dict(),
        }
        return state | ({"average": average.state_dict()} if average else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        optimizer = self._parts.optimizer
        optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}")
        self._parts.schedule.load_state_dict(state["schedule"])
        if self._parts.average:
            self._parts.average.load_state_dict(state["average"])


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


TRAINING_STEPS: Mapping[str, Callable[[Parts], TrainingStep]] = {
    "ordinary": OrdinaryStep,
    "awp": PerturbedStep,
}
