"""Crafts batches with torch, one attack step at a time. Knows no messages but their slots."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.attacks import Attack, Climb, Precision, Slope, forward, make_attack
from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.comm.messages import WireDtype
from mpiadv.contract.accounts import CraftReport
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings, Purpose, SampleOrder, StalenessRule, seed_for
from mpiadv.data import ReadAhead, Source, augment
from mpiadv.methods.objectives import Batch
from mpiadv.models import FlatState, freeze
from mpiadv.models.modes import buffers_kept
from mpiadv.settings import AttackConfig, DataConfig
from mpiadv.work.device import Device
from mpiadv.work.protocols import ProbeReport
from mpiadv.work.rounding import WIRE_TENSORS, as_tensor, rounded

MOMENT_SECONDS = 0.001
"""Between two looks at messages while images are read."""


@dataclass(frozen=True, kw_only=True)
class CraftPlan:
    """What crafting needs of the configuration; the same on every rank."""

    seed: int
    rule: StalenessRule
    order: SampleOrder
    data: DataConfig
    attack: AttackConfig
    precision: Precision
    num_clean: int
    natural_every: int
    keep_natural: bool
    wire_dtype: WireDtype


def climb_of(plan: CraftPlan, attack: Attack, model: nn.Module, ticket: int, batch: Batch) -> Climb:
    """What the attack on a ticket climbs; not on the clean images at the front of its batch."""
    assert batch.natural is not None
    return Climb(
        model=model,
        precision=plan.precision,
        loss=attack.loss,
        labels=batch.labels[plan.num_clean :],
        natural=batch.natural[plan.num_clean :],
        natural_seed=seed_for(plan.seed, Purpose.LAYERS, ticket),
    )


@dataclass(kw_only=True)
class _Looking:
    """What the steps of a job hold of it: what they climb, and what is the step's own.

    If they held the job, which holds them, its tensors would stay until Python's collector came
    upon the two: dozens of batches on the device, and holes all over the host's heap.
    """

    climb: Climb
    seed: int = 0
    version: int = 0

    def __call__(self, images: Tensor) -> Slope:
        return self.climb.slope(images, seed=self.seed, version=self.version)


@dataclass(kw_only=True)
class _Job:
    """A ticket being crafted: images float32 [N, C, H, W], the first `num_clean` stay natural."""

    ticket: int
    natural: Tensor
    labels: Tensor
    adversarial: Tensor
    looking: _Looking
    steps: Iterator[Tensor]
    natural_accuracy: Tensor | None = None


class TorchCrafter:
    """Attacks a copy of the model that it owns; several tickets may be in work at once."""

    def __init__(self, plan: CraftPlan, model: nn.Module, source: Source, device: Device) -> None:
        self._plan = plan
        self._model = model
        freeze(model)
        model.train(plan.attack.batch_norm == "train")
        self._state = FlatState(model, WIRE_TENSORS[plan.wire_dtype])
        self._source = source
        self._ahead = ReadAhead(source)
        self._device = device
        self._jobs: dict[int, _Job] = {}
        self._loaded: int | None = None

    def prefetch(self, ticket: int) -> None:
        """See `Crafter.prefetch`."""
        self._ahead.expect(ticket, self._plan.order.indices(ticket))

    def wait(self, ticket: int) -> bool:
        """See `Crafter.wait`."""
        return self._source.wait(self._plan.order.indices(ticket), MOMENT_SECONDS)

    def start(self, ticket: int, settings: AttackSettings) -> None:
        """See `Crafter.start`."""
        last = self._plan.rule.crafting_steps(settings.num_steps)
        self._jobs[ticket] = self._new_job(ticket, settings, last=last)

    def run(self, step: AttackStep, parameters: ParameterSlot) -> None:
        """See `Crafter.run`."""
        job = self._jobs[step.ticket]
        self._load(step.version, parameters)
        if step.step == 0:
            self._measure_natural_accuracy(job)
        self._attack(job, step.step, step.version)

    def busy(self) -> bool:
        """See `Work.busy`."""
        return self._device.busy()

    def finish(self, ticket: int) -> tuple[Batch, CraftReport]:
        """See `Crafter.finish`."""
        job = self._jobs.pop(ticket)
        batch = Batch(
            images=self._rounded(job.adversarial),
            labels=job.labels,
            natural=self._rounded(job.natural) if self._plan.keep_natural else None,
        )
        report = CraftReport(
            gradient_magnitude=_number(job.looking.climb.magnitude),
            natural_accuracy=_number(job.natural_accuracy),
        )
        return batch, report

    def drop(self, ticket: int) -> None:
        """See `Crafter.drop`."""
        self._jobs.pop(ticket, None)
        self._ahead.drop(ticket)

    def probe(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        """See `Crafter.probe`."""
        self.prefetch(ticket)
        return self._probing(ticket, settings, parameters)

    def download(self, batch: Batch, slot: BatchSlot) -> None:
        """See `Crafter.download`."""
        wire_dtype = self._plan.wire_dtype
        as_tensor(slot.images, wire_dtype).copy_(batch.images)
        torch.from_numpy(slot.labels).copy_(batch.labels)
        if slot.natural is not None and batch.natural is not None:
            as_tensor(slot.natural, wire_dtype).copy_(batch.natural)

    def _new_job(self, ticket: int, settings: AttackSettings, *, last: int) -> _Job:
        """The ticket's images, where their attack starts, and its steps up to step `last`."""
        images, labels = self._source.batch(self._plan.order.indices(ticket))
        self._ahead.drop(ticket)
        natural = self._augmented(ticket, images.to(self._device.torch))
        labels = labels.to(self._device.torch)
        attack = make_attack(self._plan.attack, settings)
        clean = self._plan.num_clean
        adversarial = self._start(ticket, attack, natural)
        batch = Batch(images=adversarial, labels=labels, natural=natural)
        looking = _Looking(climb=climb_of(self._plan, attack, self._model, ticket, batch))
        return _Job(
            ticket=ticket,
            natural=natural,
            labels=labels,
            adversarial=adversarial,
            looking=looking,
            steps=attack.steps(looking, natural[clean:], adversarial[clean:], last=last),
        )

    def _attack(self, job: _Job, step: int, version: int) -> None:
        """Run attack step `step` on the parameters that are loaded, those of `version`."""
        seed = seed_for(self._plan.seed, Purpose.ATTACK_DROPOUT, job.ticket, step)
        job.looking.seed, job.looking.version = seed, version
        attacked = next(job.steps)
        job.adversarial = torch.cat([job.natural[: self._plan.num_clean], attacked])
        self._device.mark()

    def _probing(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        job = self._new_job(ticket, settings, last=settings.num_steps)
        for step in range(settings.num_steps):
            # Between two steps of a probe other tickets load other parameters.
            self._load(parameters.version, parameters)
            self._attack(job, step, parameters.version)
            yield None
        self._load(parameters.version, parameters)
        accuracy, loss = self._measure(job)
        self._device.mark()
        yield None
        yield ProbeReport(accuracy=float(accuracy), loss=float(loss))

    def _measure(self, job: _Job) -> tuple[Tensor, Tensor]:
        """Accuracy and cross-entropy on the attacked images, as in the learner's training step.

        The clean part passes through the model too: batch norm sees the whole batch there.
        """
        clean, was_training = self._plan.num_clean, self._model.training
        self._model.train()
        seed = seed_for(self._plan.seed, Purpose.DROPOUT, job.ticket)
        with torch.no_grad(), buffers_kept(self._model):
            images = self._rounded(job.adversarial)
            logits = forward(self._model, images, precision=self._plan.precision, seed=seed)
        self._model.train(was_training)
        attacked, labels = logits[clean:], job.labels[clean:]
        correct = (attacked.argmax(dim=1) == labels).float().mean()
        return correct, functional.cross_entropy(attacked, labels)

    def _rounded(self, images: Tensor) -> Tensor:
        return rounded(images, self._plan.wire_dtype)

    def _augmented(self, ticket: int, images: Tensor) -> Tensor:
        config = self._plan.data
        generator = self._generator(Purpose.AUGMENTATION, ticket)
        return augment(
            images, crop_padding=config.crop_padding, flip=config.flip, generator=generator
        )

    def _start(self, ticket: int, attack: Attack, natural: Tensor) -> Tensor:
        clean = self._plan.num_clean
        generator = self._generator(Purpose.START, ticket)
        return torch.cat([natural[:clean], attack.start(natural[clean:], generator)])

    def _generator(self, purpose: Purpose, ticket: int) -> torch.Generator:
        return self._device.generator(seed_for(self._plan.seed, purpose, ticket))

    def _load(self, version: int, parameters: ParameterSlot) -> None:
        if self._loaded == version:
            return
        # One copy to the device, then from there: a copy per tensor would cost a launch each.
        self._state.unpack(torch.from_numpy(parameters.values).to(self._device.torch))
        self._loaded = version

    def _measure_natural_accuracy(self, job: _Job) -> None:
        every = self._plan.natural_every
        if every == 0 or job.ticket % every != 0:
            return
        was_training = self._model.training
        self._model.eval()
        seed = seed_for(self._plan.seed, Purpose.LAYERS, job.ticket)
        with torch.no_grad():
            logits = forward(self._model, job.natural, precision=self._plan.precision, seed=seed)
        self._model.train(was_training)
        job.natural_accuracy = (logits.argmax(dim=1) == job.labels).float().mean()


def _number(value: Tensor | None) -> float:
    return nan if value is None else float(value)
