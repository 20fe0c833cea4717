"""The links over real MPI, on three ranks: what arrives, in which order, and what is left."""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from fake_work import FakeCrafter, FakeLearner, fake_shape, parameters_of, sequential_value
from made_records import batch_header, made, version_header

from mpiadv.comm.links import (
    SPARE_BROADCASTS,
    BatchSlot,
    Delivery,
    LinkShape,
    ParameterSlot,
    plain_memory,
)
from mpiadv.comm.messages import BATCH_HEADER, SEAL_BYTES, BatchShape, Farewell, Fate
from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.comm.waiting import Wait
from mpiadv.comm.world import World
from mpiadv.contract import outbox
from mpiadv.contract.accounts import Probed, RankWork
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.outbox import LONGEST_QUEUE
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.contract.turns import Grant
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.publisher import Stop
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen

RULE = StalenessRule(max_staleness=6, final_staleness=2, publish_every=2, trainer_steps=1)
OUTSTANDING = 3
NUM_VERSIONS = 30
NUM_TICKETS = 40
NEVER_SENT = 0x55
AHEAD = [(), (1,), (2,), (1, 2)]
"""Who is to get a version first, version by version."""


def large_shape() -> LinkShape:
    """Messages beyond every eager limit, so that they are on their way for a while."""
    return LinkShape(
        batch=BatchShape(batch_size=64, image_shape=(3, 16, 16), with_natural=True),
        parameter_bytes=300_001,
        num_versions=RULE.num_versions,
        outstanding=OUTSTANDING,
    )


def content(number: int, size: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, size, np.uint8)


def until(condition: Callable[[], bool], what: str) -> None:
    wait = Wait(60.0)
    while not condition():
        wait.pause(lambda: what)


WAYS = ["in_place", "as_messages", "some_in_place", "out_of_reach", "no_memfd"]
"""In which versions come to attackers."""


@pytest.fixture
def num_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many attackers read versions where they lie: both, rank 1, or none."""
    from mpiadv.comm import mpi_world as world
    from mpiadv.comm.library import MPI

    if request.param == "as_messages":
        monkeypatch.setenv(DISABLE_SHARING, "1")
    if request.param == "no_memfd":
        monkeypatch.delattr("os.memfd_create", raising=False)
    is_far = request.param == "some_in_place" and MPI.COMM_WORLD.rank == 2
    if is_far or request.param == "out_of_reach":
        monkeypatch.setattr(world, "attach", lambda address: None)
    return {"in_place": 2, "some_in_place": 1}.get(request.param, 0)


class TrainerEnd:
    """The trainer's end of a link over MPI, and how it parts from everybody."""

    def __init__(self, world: World) -> None:
        self.num_allocated = 0
        self.link = world.trainer_link(large_shape(), self._allocate)

    def _allocate(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        self.num_allocated += 1
        return plain_memory(num_bytes)

    def free_slot(self) -> ParameterSlot:
        slots: list[ParameterSlot] = []

        def is_there() -> bool:
            self.link.poll()
            slot = self.link.free_parameter_slot()
            slots.extend([slot] if slot is not None else [])
            return bool(slots)

        until(is_there, "a free slot")
        return slots[0]

    def broadcast(self, version: int, *, is_last: bool, first: Sequence[int] = ()) -> ParameterSlot:
        slot = self.free_slot()
        slot.values[:] = content(version, slot.values.size)
        slot.header = version_header(version, stop=int(is_last))
        self.link.broadcast(slot, first=first)
        return slot

    def part(self) -> None:
        link = self.link
        link.call_last()
        until(lambda: not link.poll() and not link.pending(), "farewells")
        assert sorted(link.farewells()) == [1, 2]
        link.free()


class AttackerEnd:
    """An attacker's end: takes up parameters and answers grants until the last call."""

    def __init__(self, world: World) -> None:
        self.link = world.attacker_link(large_shape(), plain_memory)
        self.versions: list[int] = []
        self.has_all_at = 0.0
        self.answered: list[int] = []
        self._grants: list[Grant] = []
        self._last_call = False

    def work(self) -> None:
        until(self._turn, "the trainer's last call")
        self.link.bid_farewell(farewell(self.link.rank, len(self.answered), host="x" * 70))
        until(lambda: not self.link.poll() and not self.link.pending(), "all to be sent")
        self.link.free()

    def has_all(self) -> bool:
        """Look at the messages; whether the last version is among those that came so far."""
        incoming = self.link.poll()
        for slot in incoming.parameters:
            assert (slot.values == content(slot.version, slot.values.size)).all()
            self.versions.append(slot.version)
            self.has_all_at = time.monotonic()
            self.link.recycle(slot)
        self._grants += incoming.grants
        self._last_call |= incoming.last_call
        return self.versions[-1:] == [NUM_VERSIONS - 1]

    def _turn(self) -> bool:
        is_stopped = self.has_all()
        self._answer()
        return self._last_call and is_stopped and not self._grants

    def _answer(self) -> None:
        while self._grants:
            slot = self.link.free_batch_slot()
            assert (slot is None) == (self.link.pending() == OUTSTANDING), "reused while in flight"
            if slot is None:
                return
            self._send(self._grants.pop(0), slot)

    def _send(self, grant: Grant, slot: BatchSlot) -> None:
        assert grant.patient == (grant.ticket % 2 == 0)
        body = slot.buffer[BATCH_HEADER.itemsize : -SEAL_BYTES]
        body[:] = NEVER_SENT if is_dropped(grant.ticket) else content(grant.ticket, body.size)
        fate = Fate.DROPPED if is_dropped(grant.ticket) else Fate.CRAFTED
        slot.header = batch_header(grant.ticket, rank=self.link.rank, fate=fate)
        self.link.send(slot)
        self.answered.append(grant.ticket)


def farewell(rank: int, num_tickets: int, *, host: str) -> Farewell:
    probe = Probed(ticket=4, rank=rank, accuracy=0.25, loss=2.25, seconds=0.5)
    work = made(
        RankWork, rank=rank, host=host, tickets=num_tickets, craft_seconds=1.5,
        parameter_wait_seconds=2.5, trainer_wait_seconds=3.5, grant_wait_seconds=4.5,
    )  # fmt: skip
    return Farewell(work=work, probe=probe)


def is_dropped(ticket: int) -> bool:
    """Every fourth ticket is dropped; its body is `NEVER_SENT` and must not travel."""
    return ticket % 4 == 3


def check_delivery(delivery: Delivery) -> None:
    body = delivery.slot.buffer[BATCH_HEADER.itemsize : -SEAL_BYTES]
    dropped = delivery.slot.header.fate is Fate.DROPPED
    assert dropped == is_dropped(delivery.ticket)
    if dropped:
        assert not (body == NEVER_SENT).all()
    else:
        assert (body == content(delivery.ticket, body.size)).all()


def exchange(end: TrainerEnd) -> dict[int, list[int]]:
    """Grant all tickets, a few at a time; returns who answered which, in the order of arrival."""
    live = {attacker: 0 for attacker in end.link.attackers}
    answered: dict[int, list[int]] = {attacker: [] for attacker in live}
    tickets = list(range(NUM_TICKETS))

    def turn() -> bool:
        for delivery in end.link.poll():
            check_delivery(delivery)
            answered[delivery.attacker].append(delivery.ticket)
            live[delivery.attacker] -= 1
            end.link.release(delivery.slot)
        for attacker in live:
            while tickets and live[attacker] < OUTSTANDING:
                ticket = tickets.pop(0)
                end.link.grant(Grant(attacker=attacker, ticket=ticket, patient=ticket % 2 == 0))
                live[attacker] += 1
        return sum(map(len, answered.values())) == NUM_TICKETS

    until(turn, "batches")
    return answered


@pytest.mark.parametrize("num_readers", WAYS[:3], indirect=True)
@pytest.mark.mpi(min_size=3)
def test_versions_arrive_whole_and_in_order_though_slots_are_recycled_at_once(
    num_readers: int,
) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    if not world.is_trainer:
        attacker = AttackerEnd(world)
        attacker.work()
        # Whoever was not sent a version before it was recycled does without.
        assert attacker.versions == sorted(set(attacker.versions))
        return
    end, used = TrainerEnd(world), set()
    assert len(end.link.readers) == num_readers
    for version in range(NUM_VERSIONS - 1):
        slot = end.broadcast(version, is_last=False, first=AHEAD[version % len(AHEAD)])
        end.link.recycle(slot)
        used.add(id(slot))
    most = RULE.num_versions + SPARE_BROADCASTS + 2 * LONGEST_QUEUE
    most += num_readers * (RULE.num_versions + 1)
    assert 1 < len(used) <= most < NUM_VERSIONS
    end.broadcast(NUM_VERSIONS - 1, is_last=True)
    end.part()


@pytest.mark.mpi(min_size=3)
def test_version_reaches_those_named_first_ahead_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    monkeypatch.setattr(outbox, "HEAD_START_SECONDS", 60.0)
    world = MpiWorld()
    if world.is_trainer:
        end = TrainerEnd(world)
        end.broadcast(NUM_VERSIONS - 1, is_last=True, first=[2])
        end.part()
        world.gather("")
        return
    attacker = AttackerEnd(world)
    time.sleep(0.3 if world.rank == 2 else 0.0)
    begins = time.monotonic()
    attacker.work()
    times = world.gather(f"{begins} {attacker.has_all_at}")
    begun_by_first, taken_by_other = float(times[2].split()[0]), float(times[1].split()[1])
    assert begun_by_first < taken_by_other


@pytest.mark.parametrize("num_readers", WAYS[:2], indirect=True)
@pytest.mark.mpi(min_size=3)
def test_attacker_that_takes_no_version_holds_up_nobody(num_readers: int) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    if world.is_trainer:
        end = TrainerEnd(world)
        for version in (NUM_VERSIONS - 2, NUM_VERSIONS - 1):
            end.broadcast(version, is_last=version == NUM_VERSIONS - 1, first=[2])
        # Both farewells, what readers release when they part, and a version for rank 2.
        left = 2 + num_readers + 1
        until(lambda: not end.link.poll() and end.link.pending() <= left, "rank 1 to have both")
        world.gather("")
        end.part()
        return
    attacker = AttackerEnd(world)
    if world.rank == 1:
        until(attacker.has_all, "both versions, while rank 2 takes none")
    world.gather("")
    attacker.work()


@pytest.mark.mpi(min_size=3)
def test_grants_batches_and_farewells_go_both_ways_and_dropped_ones_as_headers_only() -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    if not world.is_trainer:
        attacker = AttackerEnd(world)
        attacker.work()
        assert attacker.answered == sorted(attacker.answered)
        return
    end = TrainerEnd(world)
    num_parameter_slots = end.num_allocated
    answered = exchange(end)
    assert sorted(chain.from_iterable(answered.values())) == list(range(NUM_TICKETS))
    assert all(tickets == sorted(tickets) for tickets in answered.values())
    assert end.num_allocated - num_parameter_slots <= 2 * OUTSTANDING
    end.broadcast(NUM_VERSIONS - 1, is_last=True)
    end.part()
    for rank, said in end.link.farewells().items():
        assert said == farewell(rank, len(answered[rank]), host="x" * 64)


def settings_at(version: int) -> AttackSettings:
    return AttackSettings(num_steps=3 + version % 4 // 2, epsilon=0.1)


def train_over_mpi(world: World, stop_at: int | None) -> tuple[Stop, int, dict[int, Farewell]]:
    random = Random(1)
    rest = lambda: random.random() < 0.5  # noqa: E731
    link = world.trainer_link(fake_shape(RULE, OUTSTANDING), plain_memory)
    learner = FakeLearner(RULE, rest)
    trainer = Trainer(
        dispatcher=Dispatcher(
            RULE, attackers=link.attackers, outstanding=OUTSTANDING, num_tickets=NUM_TICKETS
        ),
        link=link,
        learner=learner,
        crafter=FakeCrafter(rest),
        mode=StalenessMode.FIXED,
        attack_schedule=Foreseen(settings_at),
        on_step=lambda record: None,
        on_event=lambda kind, text: None,
        deadline_seconds=60.0,
    )
    trainer.publish_due()
    reason = trainer.run(lambda: trainer.dispatcher.step == stop_at)
    farewells = trainer.shut_down(reason)
    assert link.pending() == 0
    return reason, learner.value, farewells


def craft_over_mpi(world: World) -> tuple[Stop, bytes]:
    random = Random(world.rank)
    link = world.attacker_link(fake_shape(RULE, OUTSTANDING), plain_memory)
    attacker = Attacker(
        rule=RULE,
        mode=StalenessMode.FIXED,
        link=link,
        crafter=FakeCrafter(lambda: random.random() < 0.5),
        host=f"host{world.rank}",
        deadline_seconds=60.0,
    )
    reason, final = attacker.run()
    assert link.pending() == 0
    return reason, final.values.tobytes()


@pytest.mark.parametrize("num_readers", WAYS, indirect=True)
@pytest.mark.mpi(min_size=3)
def test_two_phase_shutdown_leaves_nothing_pending_and_the_bits_of_the_definition(
    num_readers: int,
) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    for stop_at, ends_with in ((17, Stop.INTERRUPTED), (None, Stop.FINISHED)):
        expected = sequential_value(RULE, stop_at or NUM_TICKETS, settings_at)
        if world.is_trainer:
            reason, value, farewells = train_over_mpi(world, stop_at)
            assert (reason, value) == (ends_with, expected)
            hosts = {rank: said.work.host for rank, said in farewells.items()}
            assert hosts == {1: "host1", 2: "host2"}
            assert world.roster.attackers == [1, 2]
        else:
            assert craft_over_mpi(world) == (ends_with, parameters_of(expected))


@pytest.mark.mpi(min_size=2)
def test_arrays_travel_as_bytes_and_not_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpiadv.comm import mpi_world as module

    world = module.MpiWorld()
    values = np.tile([1e-320, np.nan, 0.1, 2.0**60 + 2 * world.rank, np.inf], (40, 1))
    empty, own = np.empty((0, 2)), np.full(7 * world.rank, world.rank, np.uint8)
    with monkeypatch.context() as patched:
        patched.setattr(module, "LONGEST_MESSAGE", 64)
        patched.setattr(module, "json", None)
        total, nothing, given = world.sum(values), world.sum(empty), world.gather_bytes(own)
    ranks = range(world.size)
    expected = [world.size * 1e-320, np.nan, sum(0.1 for _ in ranks), world.size * 2.0**60, np.inf]
    assert np.array_equal(total, np.tile(expected, (40, 1)), equal_nan=True)
    assert nothing.shape == (0, 2)
    parts = [part.tolist() for part in given if part is not None]
    assert parts == ([[rank] * (7 * rank) for rank in ranks] if world.is_trainer else [])
