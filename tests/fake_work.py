"""Work for the engine's loops without torch: parameters and batches are chained hashes.

A hash takes in exactly the versions, tickets, attack settings and bytes that were used, so that any
deviation changes the final value. A device is feigned: it is busy for as long as `rest` says, reads
parameters only when it is done, and a snapshot is garbage until it is complete.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import nan
from statistics import mean

import numpy as np
from contract import contract_first_version, contract_version
from scenario import mixed

from mpiadv.comm.links import BatchSlot, LinkShape, ParameterSlot
from mpiadv.comm.messages import BatchShape, Bytes
from mpiadv.comm.sums import IsReady, at_once
from mpiadv.contract.accounts import CraftReport, TicketTold
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.methods.attack_schedules import AttackSchedule, Foreseen, TrainedStep
from mpiadv.process.errors import UnreadableError
from mpiadv.work.protocols import ProbeReport

START = 1
PARAMETER_BYTES = 1000
"""Not a multiple of anything: the last bytes must arrive as well."""

Rest = Callable[[], bool]
"""Asked while the device works: is it busy still?"""


@dataclass(frozen=True, kw_only=True)
class FakeBatch:
    """A crafted batch: its ticket and the hash of all that made it."""

    ticket: int
    value: int


def fake_shape(rule: StalenessRule, outstanding: int, *, probes: bool = False) -> LinkShape:
    """Messages whose images hold one hash, and whose natural images another where they travel."""
    return LinkShape(
        batch=BatchShape(batch_size=1, image_shape=(1, 1, 2), with_natural=rule.trainer_steps > 0),
        parameter_bytes=PARAMETER_BYTES,
        num_versions=rule.num_versions + probes,
        outstanding=outstanding,
    )


def parameters_of(value: int) -> bytes:
    """The flat parameters whose hash is `value`."""
    words = np.random.default_rng(value).integers(0, 256, PARAMETER_BYTES, np.uint8)
    return words.tobytes()


def begun(ticket: int, settings: AttackSettings) -> int:
    return mixed("start", ticket, settings)


def attacked(value: int, step: int, version: int, parameters: bytes) -> int:
    return mixed("attack", value, step, version, parameters)


def trained(value: int, tickets: Sequence[tuple[int, int, int]]) -> int:
    """Of a step's tickets number, batch and how many attack steps the trainer ran."""
    return mixed("train", value, tuple(tickets))


def own_magnitude(value: int) -> float:
    """What the trainer measures where it took the last look at a slope."""
    return float(mixed("magnitude", value) >> 11)


def probed(value: int, ticket: int) -> ProbeReport:
    return ProbeReport(accuracy=1 / (1 + ticket), loss=float(mixed("probe", value) >> 11))


def sequential_value(
    rule: StalenessRule, num_steps: int, settings_at: Callable[[int], AttackSettings]
) -> int:
    """The final parameters' hash by the definition alone."""
    return sequential_values(rule, num_steps, settings_at)[-1]


def fresh_report(
    rule: StalenessRule, trained: int, value: int, settings_at: Callable[[int], AttackSettings]
) -> ProbeReport:
    """What a probe of step `trained` tells by the definition; `value` is its version's hash."""
    ticket = trained * rule.tickets_per_step
    settings = settings_at(contract_first_version(rule, ticket))
    batch = begun(ticket, settings)
    for step in range(settings.num_steps):
        batch = attacked(batch, step, trained, parameters_of(value))
    return probed(batch, ticket)


def sequential_values(
    rule: StalenessRule, num_steps: int, settings_at: Callable[[int], AttackSettings]
) -> list[int]:
    """The parameters' hash at every step by the definition alone, one ticket after the other."""
    return adaptive_values(rule, num_steps, Foreseen(settings_at))


def adaptive_values(
    rule: StalenessRule, num_steps: int, attack_schedule: AttackSchedule
) -> list[int]:
    """The same where the settings depend on the training."""
    values, published = [START], {}
    for step in range(num_steps):
        published[step] = attack_schedule.settings(step)
        tickets = range(step * rule.tickets_per_step, (step + 1) * rule.tickets_per_step)
        settings = published[contract_first_version(rule, tickets[0])]
        num_crafted = max(0, settings.num_steps - rule.trainer_steps)
        own = settings.num_steps - num_crafted
        batches = [crafted_batch(rule, ticket, settings, values) for ticket in tickets]
        values.append(
            trained(
                values[-1], [(n, batch, own) for n, batch in zip(tickets, batches, strict=True)]
            )
        )
        is_last = own == 0 < num_crafted
        magnitude = float(mean(tickets)) if is_last else own_magnitude(values[-2])
        attack_schedule.hear(
            TrainedStep(step=step, settings=settings, gradient_magnitude=magnitude)
        )
    return values


def crafted_batch(
    rule: StalenessRule, ticket: int, settings: AttackSettings, values: Sequence[int]
) -> int:
    """A ticket's batch as attackers hand it on; `values` are the versions' hashes."""
    batch = begun(ticket, settings)
    for step in range(max(0, settings.num_steps - rule.trainer_steps)):
        version = contract_version(rule, ticket, step, settings.num_steps)
        batch = attacked(batch, step, version, parameters_of(values[version]))
    return batch


class FakeCrafter:
    """A `Crafter` of hashes; it cannot read the images of the tickets in `unread`.

    With `slow_images` they have to be waited for.
    """

    def __init__(
        self, rest: Rest, *, unread: Container[int] = (), slow_images: bool = False
    ) -> None:
        self._rest = rest
        self._unread = unread
        self._slow_images = slow_images
        self._values: dict[int, int] = {}
        self._running: Callable[[], None] | None = None

    @property
    def tickets(self) -> list[int]:
        """Tickets begun and neither finished nor dropped."""
        return sorted(self._values)

    def prefetch(self, ticket: int) -> None:
        assert ticket not in self._values

    def wait(self, ticket: int) -> bool:
        return not (self._slow_images and self._rest())

    def start(self, ticket: int, settings: AttackSettings) -> None:
        assert ticket not in self._values
        if ticket in self._unread:
            raise UnreadableError(f"images of ticket {ticket} could not be read")
        self._values[ticket] = begun(ticket, settings)

    def run(self, step: AttackStep, parameters: ParameterSlot) -> None:
        assert self._running is None and step.ticket in self._values
        version = parameters.version  # once others have done the ticket, another may come there

        def done() -> None:
            if step.ticket in self._values:
                value, values = self._values[step.ticket], parameters.values.tobytes()
                self._values[step.ticket] = attacked(value, step.step, version, values)

        self._running = done

    def busy(self) -> bool:
        if self._running is None:
            return False
        if self._rest():
            return True
        done, self._running = self._running, None
        done()
        return False

    def probe(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        values = [begun(ticket, settings)]
        for step in range(settings.num_steps):
            assert self._running is None and len(values) == step + 1
            self._running = lambda step=step: values.append(  # type: ignore[misc]
                attacked(values[-1], step, parameters.version, parameters.values.tobytes())
            )
            yield None
        yield probed(values[-1], ticket)

    def finish(self, ticket: int) -> tuple[FakeBatch, CraftReport]:
        batch = FakeBatch(ticket=ticket, value=self._values.pop(ticket))
        return batch, CraftReport(gradient_magnitude=float(ticket), natural_accuracy=nan)

    def drop(self, ticket: int) -> None:
        self._values.pop(ticket, None)

    def download(self, batch: FakeBatch, slot: BatchSlot) -> None:
        slot.labels[:] = batch.ticket
        slot.images.reshape(-1).view(np.uint64)[:] = batch.value
        if slot.natural is not None:
            slot.natural.reshape(-1).view(np.uint64)[:] = mixed("natural", batch.ticket)


class FakeLearner:
    """A `Learner` of hashes; the loss of ticket `nan_at` is NaN.

    A snapshot is complete when it has been asked for more than `snapshot_polls` times.
    """

    leaves_host_free = True
    sum_bytes = 64 * 3

    def __init__(
        self,
        rule: StalenessRule,
        rest: Rest,
        *,
        value: int = START,
        nan_at: int | None = None,
        snapshot_polls: int = 0,
    ) -> None:
        self.value = value
        self._snapshot_polls = snapshot_polls
        self._rule = rule
        self._rest = rest
        self._nan_at = nan_at
        self._trained: Callable[[], int] | None = None
        self._tickets: list[tuple[int, int, int]] = []
        self._loss = 1.0
        self._measures = False

    def snapshot(self, values: Bytes) -> Callable[[], bool]:
        parameters = np.frombuffer(parameters_of(self.value), np.uint8)
        values[:] = 0xFF
        polls = count()

        def is_complete() -> bool:
            if next(polls) < self._snapshot_polls or self._rest():
                return False
            values[:] = parameters
            return True

        return is_complete

    def upload(self, slot: BatchSlot) -> FakeBatch:
        ticket = int(slot.labels[0])
        assert ticket == slot.header.origin.ticket
        if slot.natural is not None:
            assert int(slot.natural.reshape(-1).view(np.uint64)[0]) == mixed("natural", ticket)
        return FakeBatch(ticket=ticket, value=int(slot.images.reshape(-1).view(np.uint64)[0]))

    def train(
        self, ticket: int, batch: FakeBatch, settings: AttackSettings, pump: Callable[[], None]
    ) -> None:
        assert ticket == batch.ticket and self._trained is None
        own = settings.num_steps - max(0, settings.num_steps - self._rule.trainer_steps)
        if not self._tickets:
            self._loss = 1.0
        self._tickets.append((ticket, batch.value, own))
        self._trained = lambda: self.value
        self._measures = own > 0 or settings.num_steps == 0
        self._loss = nan if ticket == self._nan_at else self._loss

    def give_sum(self, values: Bytes) -> IsReady:
        """Which tickets there were, each in a place of its own."""
        values[:] = 0
        places = values.view(np.uint64).reshape(-1, 3)
        for ticket, value, own in self._tickets:
            number = self._rule.number(ticket)
            places[number % self._rule.tickets_per_step] = number + 1, value, own
        return at_once

    def add_sum(self, values: Bytes, start: int, theirs: Bytes) -> None:
        values[start : start + theirs.size] |= theirs

    def complete(self, values: Bytes | None = None) -> float:
        assert self._trained is None
        tickets, self._tickets = self._tickets, []
        if values is not None:
            places = values.view(np.uint64).reshape(-1, 3)[: self._rule.tickets_per_step]
            tickets = [(int(number) - 1, int(value), int(own)) for number, value, own in places]
        self._trained = lambda: trained(self.value, tickets)
        return 1e-3

    def fingerprint(self) -> int:
        return self.value >> 1

    def busy(self) -> bool:
        if self._trained is None:
            return False
        if self._rest():
            return True
        self.value, self._trained = self._trained(), None
        return False

    def told(self) -> list[TicketTold]:
        assert self._trained is None
        magnitude = own_magnitude(self.value) if self._measures else None
        told = TicketTold(loss=self._loss, accuracy=0.5, gradient_magnitude=magnitude)
        return [told] * len(self._tickets)
