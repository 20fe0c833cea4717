"""The links over real MPI, on three ranks: what arrives, in which order, and from whom."""

import time
from itertools import chain

import numpy as np
import pytest
from link_ends import (
    NEVER_SENT,
    NUM_VERSIONS,
    OUTSTANDING,
    RULE,
    AttackerEnd,
    TrainerEnd,
    content,
    farewell,
    is_dropped,
    until,
)

from mpiadv.comm.links import SPARE_BROADCASTS, Delivery
from mpiadv.comm.messages import BATCH_HEADER, SEAL_BYTES, Fate
from mpiadv.contract import outbox
from mpiadv.contract.outbox import LONGEST_QUEUE
from mpiadv.contract.turns import Grant

NUM_TICKETS = 40
AHEAD = [(), (1,), (2,), (1, 2)]
"""Who is to get a version first, version by version."""


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


@pytest.mark.parametrize("num_readers", ["in_place", "as_messages", "some_in_place"], indirect=True)
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
    assert len(end.link.groups[0]) == 1 + num_readers
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


@pytest.mark.parametrize("num_readers", ["in_place", "as_messages"], indirect=True)
@pytest.mark.mpi(min_size=3)
def test_attacker_that_takes_no_version_holds_up_nobody(num_readers: int) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    if world.is_trainer:
        end = TrainerEnd(world)
        for version in (NUM_VERSIONS - 2, NUM_VERSIONS - 1):
            end.broadcast(version, is_last=version == NUM_VERSIONS - 1, first=[2])
        end.link.grant(Grant(attacker=1, ticket=3, patient=False))
        until(lambda: bool(end.link.poll()), "rank 1's answer, once it has both")
        world.gather("")
        end.part()
        return
    attacker = AttackerEnd(world)
    if world.rank == 1:
        until(attacker.has_all, "both versions, while rank 2 takes none")
        # The grant may come later: versions that are broadcast go on a communicator of their own.
        until(attacker.has_answered, "the grant, and its answer to be taken")
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
