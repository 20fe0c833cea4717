"""Trains with torch: the trainer's own attack steps on a batch, then a training step on it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from mpiadv.attacks import STARTS, ClimbView, Stand, make_attack, mean_magnitude
from mpiadv.comm.links import BatchSlot
from mpiadv.comm.messages import Bytes
from mpiadv.comm.sums import IsReady
from mpiadv.contract.accounts import TicketTold
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import TrainingStep
from mpiadv.models import fingerprint
from mpiadv.models.execution import Executor, eagerly
from mpiadv.work.device import Device, IsComplete
from mpiadv.work.flat_sums import FlatSums
from mpiadv.work.recipe import Recipe, climb_of, mixed, state_on_the_wire, whole
from mpiadv.work.rounding import RangeGuard, as_tensor
from mpiadv.work.step_sum import StepSum, Told

FINGERPRINT_DIGITS = 15
"""Hexadecimal, as many as a signed integer of a message takes."""


class TorchLearner:
    """Brings batches to the training step and the parameters of its model to messages.

    With `tells_gradient` it tells the gradient magnitude of training steps without attack, too.
    `execute` is how looks at the model are run, in its own attack steps.
    """

    def __init__(
        self,
        recipe: Recipe,
        step: TrainingStep,
        device: Device,
        *,
        tells_gradient: bool = False,
        execute: Executor = eagerly,
    ) -> None:
        self.step, self.model = step, step.model
        self.leaves_host_free = device.is_cuda
        self._recipe = recipe
        self._device = device
        self.busy = device.busy
        self._state = state_on_the_wire(recipe, step.model)
        self.parameter_bytes = self._state.num_bytes
        self._flat = torch.zeros(self.parameter_bytes, dtype=torch.uint8, device=device.torch)
        self._copy: IsComplete = lambda: True
        self._guard = RangeGuard(self._state, recipe.wire_dtype, device)
        self._tells_gradient = tells_gradient
        self._execute = execute
        rule = recipe.rule
        self._sum = StepSum(step.model, rule.team_tickets, rule.num_teams)
        self._flat_sums = FlatSums(step.model, device.copy_aside)
        self.sum_bytes = self._flat_sums.num_bytes
        self.add_sum = self._flat_sums.add

    def snapshot(self, values: Bytes) -> Callable[[], bool]:
        """See `Learner.snapshot`.

        Raises:
            UserError: a parameter is beyond the range of the wire's type; or the result raises it.
        """
        if not self._device.is_cuda:
            self._guard.begin()
            self._guard.end()
            self._state.pack(torch.from_numpy(values))
            return lambda: True
        while not self._has_left(self._copy):
            pass
        self._guard.begin()
        self._state.pack(self._flat)
        copy = self._copy = self._device.copy_aside(self._flat, values)
        return lambda: self._has_left(copy)

    def _has_left(self, copy: IsComplete) -> bool:
        if not copy():
            return False
        self._guard.end()
        return True

    def upload(self, slot: BatchSlot) -> Batch:
        return Batch(
            images=self._floats(slot.images),
            labels=self._integers(slot.labels),
            natural=None if slot.natural is None else self._floats(slot.natural),
            notes=None if slot.notes is None else self._integers(slot.notes),
        )

    def _integers(self, array: npt.NDArray[Any]) -> Tensor:
        return self._device.upload(torch.from_numpy(array))

    def _floats(self, array: npt.NDArray[Any]) -> Tensor:
        return self._device.upload(as_tensor(array, self._recipe.wire_dtype)).float()

    def train(
        self, ticket: int, batch: Batch, settings: AttackSettings, pump: Callable[[], None]
    ) -> None:
        number = self._recipe.rule.number(ticket)
        if self._recipe.data.cutmix_alpha:
            # They depend on the images' number and size alone.
            some = batch.images[:, :1]
            batch = replace(batch, targets=mixed(self._recipe, number, some, batch.labels)[1])
        magnitude = None
        if not self.step.attacks:
            batch, magnitude = self._finish_attack(number, batch, settings, pump)
        batch = whole(self._recipe, batch)
        if self._tells_gradient and settings.num_steps == 0:
            batch = replace(batch, images=batch.images.detach().requires_grad_())
        if self._recipe.draw_nearby:
            batch = replace(batch, nearby=self._nearby(number, batch, settings))
        for replay in range(self.step.replays(settings)):
            if replay:
                self.complete()
                pump()
            self._sum.begin()
            learned = self.step.gradient(number, batch, settings)
            if learned.slope is not None:  # of a mean over the batch
                slope = learned.slope * len(batch.images)
                magnitude = mean_magnitude(slope[self._recipe.num_clean :])
            self._sum.end(Told(learned.loss, learned.accuracy, magnitude))
        self._device.mark()

    def told(self) -> list[TicketTold]:
        return [
            TicketTold(
                loss=float(each.loss),
                accuracy=float(each.accuracy),
                gradient_magnitude=None if each.magnitude is None else float(each.magnitude),
            )
            for each in self._sum.told
        ]

    def give_sum(self, values: Bytes) -> IsReady:
        return self._flat_sums.pack(self._sum.take(), values)

    def complete(self, values: Bytes | None = None) -> float:
        self._sum.complete(None if values is None else self._flat_sums.unpack(values))
        rate = self.step.apply()
        self._device.mark()
        return rate

    def fingerprint(self) -> int:
        return int(fingerprint(self.model)[:FINGERPRINT_DIGITS], 16)

    def _finish_attack(
        self, number: int, batch: Batch, settings: AttackSettings, pump: Callable[[], None]
    ) -> tuple[Batch, Tensor | None]:
        """The batch after the steps that the staleness rule leaves to the trainer, if any.

        And the mean magnitude of the gradient at the last of them, float32 []. Buffers of the model
        are left as they were, its mode is that of the attack. The clean images at the front of the
        batch are not attacked.
        """
        recipe, model, num_steps = self._recipe, self.model, settings.num_steps
        first = recipe.rule.crafting_steps(num_steps)
        if first == num_steps:
            return batch, None
        assert batch.natural is not None
        model.train(recipe.attack.batch_norm == "train")
        attack, clean = recipe.attack_on(number, settings), recipe.num_clean
        climb = climb_of(recipe, attack, model, self._execute, number, batch)
        looking, natural = ClimbView(climb=climb), batch.natural[clean:]
        stand = Stand(batch.images[clean:], None if batch.notes is None else batch.notes[clean:])
        steps = attack.steps(looking, natural, stand, first=first)
        for step in range(first, num_steps):
            looking.seed = seed_for(recipe.seed, Purpose.ATTACK_DROPOUT, number, step)
            stand = next(steps)
            pump()
        images = torch.cat([batch.natural[:clean], stand.images])
        return replace(batch, images=images), climb.magnitude

    def _nearby(self, number: int, batch: Batch, settings: AttackSettings) -> Tensor:
        """A random place in the ball of each natural image."""
        assert batch.natural is not None
        seed = seed_for(self._recipe.seed, Purpose.NEARBY, number)
        attack = replace(make_attack(self._recipe.attack, settings), start_at=STARTS["uniform"])
        return attack.start(batch.natural, self._device.generator(seed))
