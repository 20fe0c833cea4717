"""Trains the model with torch: the trainer's own attack steps, then one step of the optimiser."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mpiadv.attacks import mixed_precision
from mpiadv.comm.links import BatchSlot
from mpiadv.comm.messages import Bytes
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.objectives import Batch, Objective
from mpiadv.models import FlatState
from mpiadv.models.random_streams import seed_streams
from mpiadv.work.craft import CraftPlan
from mpiadv.work.device import CopyInFlight, Device
from mpiadv.work.last_steps import finish_attack
from mpiadv.work.protocols import Outcome
from mpiadv.work.rounding import WIRE_TENSORS, RangeGuard, as_tensor


class TorchLearner:
    """Owns the model that is trained, its optimiser and its learning-rate schedule."""

    def __init__(
        self,
        plan: CraftPlan,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        schedule: LRScheduler,
        device: Device,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self._plan = plan
        self._objective = objective
        self._device = device
        self._state = FlatState(model, WIRE_TENSORS[plan.wire_dtype])
        self._flat = torch.zeros(self._state.num_bytes, dtype=torch.uint8, device=device.torch)
        self._copy = CopyInFlight(None)
        self._guard = RangeGuard(self._state, plan.wire_dtype, device)
        self._told: tuple[Tensor, Tensor, float] | None = None

    @property
    def parameter_bytes(self) -> int:
        """Bytes of a snapshot."""
        return self._state.num_bytes

    @property
    def device_type(self) -> str:
        """Kind of device: "cpu" or "cuda"."""
        return self._device.torch.type

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

    def _has_left(self, copy: CopyInFlight) -> bool:
        if not copy.complete():
            return False
        self._guard.end()
        return True

    def upload(self, slot: BatchSlot) -> Batch:
        """See `Learner.upload`."""
        return Batch(
            images=self._floats(slot.images),
            labels=self._device.upload(torch.from_numpy(slot.labels)),
            natural=None if slot.natural is None else self._floats(slot.natural),
        )

    def _floats(self, array: npt.NDArray[Any]) -> Tensor:
        """An array of a message, float32 on the device."""
        return self._device.upload(as_tensor(array, self._plan.wire_dtype)).float()

    def train(
        self, ticket: int, batch: Batch, settings: AttackSettings, pump: Callable[[], None]
    ) -> None:
        """See `Learner.train`."""
        batch = finish_attack(self._plan, self.model, ticket, batch, settings, pump)
        self.model.train()
        seed_streams(seed_for(self._plan.seed, Purpose.DROPOUT, ticket), self._device.torch)
        with mixed_precision(self._device.torch, self._plan.precision):
            loss = self._objective(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.schedule.step()
        correct = (loss.logits.argmax(dim=1) == batch.labels)[self._plan.num_clean :].float().mean()
        self._told = loss.total.detach(), correct, rate
        self._device.mark()

    @property
    def leaves_host_free(self) -> bool:
        """See `Learner.leaves_host_free`."""
        return self._device.torch.type != "cpu"

    def busy(self) -> bool:
        """See `Work.busy`."""
        return self._device.busy()

    def outcome(self) -> Outcome:
        """See `Learner.outcome`."""
        assert self._told is not None, "no training step has run"
        loss, accuracy, rate = self._told
        return Outcome(loss=float(loss), accuracy=float(accuracy), learning_rate=rate)
