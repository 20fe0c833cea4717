"""What a training step is, and the ordinary one. Knows no message and no communicator.

A training step falls into two halves, so that several tickets, or several trainers, can come
between them: the gradient of a ticket, and what is done with the mean over the step's tickets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mpiadv.attacks import mixed_precision
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.averages import WeightAverage
from mpiadv.methods.objective import Batch, Objective
from mpiadv.models import device_of
from mpiadv.models.execution import Executor, eagerly
from mpiadv.models.random_streams import seed_streams
from mpiadv.settings import AttackConfig, TrainingConfig
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


class TrainingStep(Protocol):
    """Trains a model: `gradient` for each ticket of a step in their order, then `apply`, once.

    A step may assume that whoever calls it does nothing to the parameters, and that `apply` finds
    in their `.grad` the mean over the step's tickets of what `gradient` left there. It must keep to
    the following, so that neither the number of trainers nor an interruption changes a bit:

    - `gradient` changes `.grad` and buffers alone. What moves the weights for a while (AWP) puts
      them back before it returns.
    - What is random is seeded by the ticket.
    - What lasts from one ticket to another (the perturbation of FREE) is in `state_dict`.

    All passes of one update (YOPO) belong into one `gradient`. Where a step goes over its tickets
    several times with an update after each (FREE, DEAT), it gets the same tickets again after
    `apply`, as often as it `replays` them. A step that `attacks` runs the trainer's attack steps
    itself: its batches come as they were crafted.
    """

    @property
    def attacks(self) -> bool:
        """Whether it runs all attack steps itself."""

    @property
    def model(self) -> nn.Module:
        """The model being trained."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """What is evaluated and saved: the model being trained as `RAW`, and its averages."""

    @property
    def steps_done(self) -> int:
        """Training steps done, with all replays of their tickets, in a run and what it resumes."""

    def replays(self, settings: AttackSettings) -> int:
        """How often a step goes over tickets of these settings, at least once."""

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

    `config`: the steps' own section. `attack`: that of steps which attack. `num_clean`: how many
    images at the front of a batch are natural. `execute`: how gradients are computed.
    """

    config: TrainingConfig
    attack: AttackConfig
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

    attacks = False

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

    def replays(self, settings: AttackSettings) -> int:
        return 1

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        return self._gradient(batch, self._seed(ticket))

    def _seed(self, ticket: int, number: int = 0) -> int:
        """Of what the model draws in pass `number` over a ticket."""
        further = (number,) if number else ()
        return seed_for(self._parts.seed, Purpose.DROPOUT, ticket, *further)

    def _gradient(self, batch: Batch, seed: int) -> Learned:
        """As `gradient`; `seed` is of what the model draws."""
        self.model.train()
        seed_streams(seed, device_of(self.model))
        wants_slope = batch.images.requires_grad
        given = {name: t.detach() for name in _READ if (t := getattr(batch, name)) is not None}
        loss, accuracy, slope, *gradients = self._parts.execute(
            ("the training gradient", wants_slope, tuple(given)),
            partial(self._pass, wants_slope, tuple(given)),
            *given.values(),
        )
        assert loss is not None and accuracy is not None
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        return Learned(loss=loss, accuracy=accuracy, slope=slope)

    def apply(self) -> float:
        rate = self._update()
        self._end()
        return rate

    def _update(self) -> float:
        """An optimiser's step, at the learning rate that it returns."""
        self._parts.optimizer.step()
        return float(self._parts.optimizer.param_groups[0]["lr"])

    def _end(self) -> None:
        """What follows the last update of a training step."""
        self._parts.schedule.step()
        if self._parts.average:
            self._parts.average.update()

    def _pass(
        self, wants_slope: bool, names: tuple[str, ...], *given: Tensor
    ) -> list[Tensor | None]:
        """Forward and backward: what `Learned` has, in its order, and parameters' gradients."""
        parts, read = self._parts, dict(zip(names, given, strict=True))
        images, labels = read["images"].detach().requires_grad_(wants_slope), read["labels"]
        others = {name: read.get(name) for name in _READ[2:]}
        batch = Batch(images=images, labels=labels, num_clean=parts.num_clean, **others)
        with mixed_precision(images.device, parts.config.precision):
            loss = parts.objective(self.model, batch)
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
