"""Crafts batches with torch, one attack step at a time. Knows no messages but their slots."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import nan

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.attacks import ClimbView, Stand, TicketAttack, forward
from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.contract.accounts import CraftReport
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.data import ReadAhead, Source, augment
from mpiadv.data.mixing import rand_augment
from mpiadv.data.source import row_by_row
from mpiadv.methods.objective import Batch
from mpiadv.models import freeze
from mpiadv.models.execution import Executor, eagerly
from mpiadv.models.mixture import by_branch, natural_branch
from mpiadv.models.modes import buffers_kept
from mpiadv.process.errors import SampleError, UserError
from mpiadv.work.device import Device
from mpiadv.work.protocols import ProbeReport
from mpiadv.work.recipe import Recipe, climb_of, mixed, of_each_image, state_on_the_wire
from mpiadv.work.rounding import as_tensor, rounded

MOMENT_SECONDS = 0.001
"""Between two looks at messages while images are read."""


@dataclass(kw_only=True)
class _Piece:
    """A ticket being crafted: images float32 [N, C, H, W], the first `num_clean` stay natural.

    Its steps hold `looking`, and not the piece, which holds them: its tensors would stay until
    Python's collector came upon the two, dozens of batches on the device, and holes all over the
    host's heap.
    """

    number: int
    natural: Tensor
    labels: Tensor
    adversarial: Tensor
    looking: ClimbView
    steps: Iterator[Stand]
    notes: Tensor | None = None
    natural_accuracy: Tensor | None = None


class TorchCrafter:
    """Attacks a copy of the model that it owns; several tickets may be in work at once.

    `run` is how looks at the model are run.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        source: Source,
        device: Device,
        execute: Executor = eagerly,
    ) -> None:
        self._recipe = recipe
        self._model = model
        self._execute = execute
        freeze(model)
        model.train(recipe.attack.batch_norm == "train")
        self._state = state_on_the_wire(recipe, model)
        self._source = source
        self._ahead = ReadAhead(source)
        self._device = device
        self.busy = device.busy
        self._pieces: dict[int, _Piece] = {}
        self._loaded: int | None = None

    def prefetch(self, ticket: int) -> None:
        self._ahead.expect(ticket, self._recipe.indices(ticket))

    def wait(self, ticket: int) -> bool:
        return self._source.wait(self._recipe.indices(ticket), MOMENT_SECONDS)

    def start(self, ticket: int, settings: AttackSettings) -> None:
        last = self._recipe.rule.crafting_steps(settings.num_steps)
        self._pieces[ticket] = self._new_piece(ticket, settings, last=last)

    def run(self, step: AttackStep, parameters: ParameterSlot) -> None:
        piece = self._pieces[step.ticket]
        self._load(step.version, parameters)
        if step.step == 0:
            self._measure_natural_accuracy(piece)
        self._attack(piece, step.step, step.version)

    def finish(self, ticket: int) -> tuple[Batch, CraftReport]:
        piece = self._pieces.pop(ticket)
        batch = Batch(
            # As they would have travelled: memory that is laid out otherwise has other bits.
            images=row_by_row(self._rounded(piece.adversarial)),
            labels=piece.labels,
            natural=row_by_row(self._rounded(piece.natural)) if self._recipe.keep_natural else None,
            notes=self._all_notes(piece) if self._recipe.keep_notes else None,
        )
        report = CraftReport(
            gradient_magnitude=_number(piece.looking.climb.magnitude),
            natural_accuracy=_number(piece.natural_accuracy),
        )
        return batch, report

    def drop(self, ticket: int) -> None:
        self._pieces.pop(ticket, None)
        self._ahead.drop(ticket)

    def probe(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        self.prefetch(ticket)
        return self._probing(ticket, settings, parameters)

    def download(self, batch: Batch, slot: BatchSlot) -> None:
        wire_dtype = self._recipe.wire_dtype
        as_tensor(slot.images, wire_dtype).copy_(batch.images)
        torch.from_numpy(slot.labels).copy_(batch.labels)
        if slot.natural is not None and batch.natural is not None:
            as_tensor(slot.natural, wire_dtype).copy_(batch.natural)
        if slot.notes is not None and batch.notes is not None:
            torch.from_numpy(slot.notes).copy_(batch.notes)

    def _new_piece(self, ticket: int, settings: AttackSettings, *, last: int) -> _Piece:
        """The ticket's images, where their attack starts, and its steps up to step `last`."""
        try:
            images, labels = self._source.batch(self._recipe.indices(ticket))
        except UserError as error:
            raise SampleError(str(error)) from error
        self._ahead.drop(ticket)
        number = self._recipe.rule.number(ticket)
        natural = self._augmented(number, images.to(self._device.torch))
        labels, targets = labels.to(self._device.torch), None
        if self._recipe.data.cutmix_alpha:
            natural, targets = mixed(self._recipe, number, natural, labels)
        attack = self._recipe.attack_on(number, settings)
        clean = self._recipe.num_clean
        adversarial = self._start(number, attack, natural)
        batch = Batch(images=adversarial, labels=labels, targets=targets, natural=natural)
        climb = climb_of(self._recipe, attack, self._model, self._execute, number, batch)
        looking = ClimbView(climb=climb)
        return _Piece(
            number=number,
            natural=natural,
            labels=labels,
            adversarial=adversarial,
            looking=looking,
            steps=attack.steps(looking, natural[clean:], Stand(adversarial[clean:]), last=last),
        )

    def _attack(self, piece: _Piece, step: int, version: int) -> None:
        """Run attack step `step` on the parameters that are loaded, those of `version`."""
        seed = seed_for(self._recipe.seed, Purpose.ATTACK_DROPOUT, piece.number, step)
        piece.looking.seed, piece.looking.version = seed, version
        attacked, piece.notes = next(piece.steps)
        piece.adversarial = torch.cat([piece.natural[: self._recipe.num_clean], attacked])
        self._device.mark()

    def _all_notes(self, piece: _Piece) -> Tensor:
        """Of each image of the batch, what its attack has noted so far: int64 [N]."""
        notes = torch.zeros(len(piece.adversarial), dtype=torch.int64, device=self._device.torch)
        if piece.notes is not None:
            notes[self._recipe.num_clean :] = piece.notes
        return notes

    def _probing(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        piece = self._new_piece(ticket, settings, last=settings.num_steps)
        for step in range(settings.num_steps):
            # Between two steps of a probe other tickets load other parameters.
            self._load(parameters.version, parameters)
            self._attack(piece, step, parameters.version)
            yield None
        self._load(parameters.version, parameters)
        accuracy, loss = self._measure(piece)
        self._device.mark()
        yield None
        yield ProbeReport(accuracy=float(accuracy), loss=float(loss))

    def _measure(self, piece: _Piece) -> tuple[Tensor, Tensor]:
        """Accuracy and cross-entropy on the attacked images, as in the learner's training step.

        The clean part passes through the model too: batch norm sees the whole batch there.
        """
        clean, was_training = self._recipe.num_clean, self._model.training
        self._model.train()
        seed = seed_for(self._recipe.seed, Purpose.DROPOUT, piece.number)
        with torch.no_grad(), buffers_kept(self._model):
            images = self._rounded(piece.adversarial)
            judge = partial(by_branch, self._model, num_natural=clean)
            logits = forward(judge, images, precision=self._recipe.precision, seed=seed)
        self._model.train(was_training)
        attacked = logits[clean:]
        labels = of_each_image(self._recipe, piece.labels, len(logits))[clean:]
        correct = (attacked.argmax(dim=1) == labels).float().mean()
        return correct, functional.cross_entropy(attacked, labels)

    def _rounded(self, images: Tensor) -> Tensor:
        return rounded(images, self._recipe.wire_dtype)

    def _augmented(self, number: int, images: Tensor) -> Tensor:
        config = self._recipe.data
        generator = self._generator(Purpose.AUGMENTATION, number)
        images = augment(
            images, crop_padding=config.crop_padding, flip=config.flip, generator=generator
        )
        if not config.rand_augment_ops:
            return images
        return rand_augment(
            images,
            num_ops=config.rand_augment_ops,
            magnitude=config.rand_augment_magnitude,
            seed=seed_for(self._recipe.seed, Purpose.RAND_AUGMENT, number),
        )

    def _start(self, number: int, attack: TicketAttack, natural: Tensor) -> Tensor:
        clean = self._recipe.num_clean
        generator = self._generator(Purpose.START, number)
        return torch.cat([natural[:clean], attack.start(natural[clean:], generator)])

    def _generator(self, purpose: Purpose, number: int) -> torch.Generator:
        return self._device.generator(seed_for(self._recipe.seed, purpose, number))

    def _load(self, version: int, parameters: ParameterSlot) -> None:
        if self._loaded == version:
            return
        # One copy to the device, then from there: a copy per tensor would cost a launch each.
        self._state.unpack(torch.from_numpy(parameters.values).to(self._device.torch))
        self._loaded = version

    def _measure_natural_accuracy(self, piece: _Piece) -> None:
        every = self._recipe.natural_every
        if every == 0 or piece.number % every != 0:
            return
        was_training = self._model.training
        self._model.eval()
        seed = seed_for(self._recipe.seed, Purpose.LAYERS, piece.number)
        with natural_branch(self._model), torch.no_grad():
            logits = forward(
                self._model, piece.natural, precision=self._recipe.precision, seed=seed
            )
        self._model.train(was_training)
        piece.natural_accuracy = (logits.argmax(dim=1) == piece.labels).float().mean()


def _number(value: Tensor | None) -> float:
    return nan if value is None else float(value)
