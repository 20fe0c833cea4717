"""Messages on the wire, waits with a deadline, and the link in memory."""

import re
import subprocess
import sys

import numpy as np
import pytest
from fake_work import fake_shape
from made_records import version_header
from memory_network import MemoryNetwork

from mpiadv.comm.homes import copies_told
from mpiadv.comm.links import BatchSlot, ParameterSlot, plain_memory
from mpiadv.comm.messages import (
    ALIGNMENT,
    PARAMETER_HEADER,
    SEAL_BYTES,
    BatchHeader,
    BatchShape,
    Call,
    Farewell,
    Frame,
    Release,
    VersionHeader,
    header_type,
)
from mpiadv.comm.waiting import LONGEST_SLEEP_SECONDS, SHORTEST_SLEEP_SECONDS, Wait
from mpiadv.contract.outbox import HEAD_START_SECONDS, LONGEST_QUEUE, Outbox
from mpiadv.contract.tickets import StalenessRule
from mpiadv.process.errors import DeadlineError

SHAPES = {
    "one": BatchShape(batch_size=1, image_shape=(1, 1, 2)),
    "digits": BatchShape(batch_size=7, image_shape=(1, 8, 8), with_natural=True),
    "color": BatchShape(batch_size=5, image_shape=(3, 5, 3), with_natural=True),
    "float16": BatchShape(
        batch_size=5, image_shape=(3, 5, 3), with_natural=True, wire_dtype="float16"
    ),
    "several_of_each_image": BatchShape(
        batch_size=5, image_shape=(1, 3, 3), num_images=11, with_natural=True, with_notes=True
    ),
    "bfloat16": BatchShape(batch_size=7, image_shape=(1, 8, 8), wire_dtype="bfloat16"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_arrays_of_a_batch_share_no_byte_and_are_aligned(shape: BatchShape) -> None:
    slot = BatchSlot(shape, plain_memory)
    arrays = [slot._header, slot.labels, slot.images]
    arrays += [each for each in (slot.natural, slot.notes) if each is not None]
    assert (slot.natural is not None) == shape.with_natural
    assert (slot.notes is not None) == shape.with_notes
    for number, array in enumerate(arrays, start=1):
        array.view(np.uint8)[...] = number
    for number, array in enumerate(arrays, start=1):
        assert (array.view(np.uint8) == number).all()
    count = shape.num_images or shape.batch_size
    assert slot.images.shape == (count, *shape.image_shape)
    assert slot.natural is None or slot.natural.shape == (shape.batch_size, *shape.image_shape)
    assert slot.notes is None or slot.notes.shape == (count,)
    assert slot.labels.shape == (shape.batch_size,)
    assert slot.buffer.size % ALIGNMENT == 0
    assert all(a.ctypes.data % ALIGNMENT == 0 for a in (slot.buffer, slot.images))


@pytest.mark.parametrize("said", [VersionHeader, BatchHeader, Call, Release, Farewell, Frame])
def test_headers_are_whole_blocks_that_end_with_their_seal(said: type) -> None:
    header = header_type(said)
    assert header.itemsize % ALIGNMENT == 0
    assert header.fields is not None and header.fields["seal"][1] == header.itemsize - SEAL_BYTES


def test_values_of_a_parameter_message_follow_its_header() -> None:
    slot = ParameterSlot(1000, plain_memory)
    slot.values[:] = 7
    slot.header = version_header(12)
    assert slot.version == 12
    assert slot.buffer.size == PARAMETER_HEADER.itemsize + 1024 + ALIGNMENT
    assert np.count_nonzero(slot.buffer == 7) == 1000


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_wait_past_its_deadline_says_for_what_and_how_long() -> None:
    clock = Clock()
    wait = Wait(2.5, clock=clock, sleep=clock.sleep)
    words = "waited 2.5 s for rank 3 on node7 with ticket 12: the other side is dead, stuck or slo"
    with pytest.raises(DeadlineError, match=re.escape(words)):
        while True:
            wait.pause(lambda: "rank 3 on node7 with ticket 12")
    assert clock.now == pytest.approx(2.5, abs=2 * LONGEST_SLEEP_SECONDS)


def test_wait_begins_anew_when_something_happened() -> None:
    clock = Clock()
    wait = Wait(0.01, clock=clock, sleep=clock.sleep)
    for _ in range(100):
        wait.pause(lambda: "nothing")
        wait.over()
    assert clock.now > 0.0099
    assert set(clock.sleeps) == {SHORTEST_SLEEP_SECONDS}


def test_wait_backs_off_to_its_longest_sleep() -> None:
    clock = Clock()
    wait = Wait(10.0, clock=clock, sleep=clock.sleep)
    while clock.now < 9:
        wait.pause(lambda: "nothing")
    assert clock.sleeps == sorted(clock.sleeps)
    assert len(clock.sleeps) < 2500, "a rank with nothing to do leaves the cores to others"
    assert clock.sleeps[0] == SHORTEST_SLEEP_SECONDS
    assert clock.sleeps[-1] == LONGEST_SLEEP_SECONDS


@pytest.mark.parametrize(("seconds", "late"), [(0.01, 1.06), (0.1, 1.02), (0.5, 1.006), (8, 1.006)])
def test_end_of_a_wait_is_noticed_soon_after_it(seconds: float, late: float) -> None:
    clock = Clock()
    wait = Wait(10.0, clock=clock, sleep=clock.sleep)
    while clock.now < seconds:
        wait.pause(lambda: "nothing")
    assert clock.now < late * seconds


def test_link_in_memory_uses_a_parameter_slot_again_only_when_every_attacker_has_it() -> None:
    rule = StalenessRule(max_staleness=0, final_staleness=0, publish_every=1)
    network = MemoryNetwork(2, fake_shape(rule, 1))
    trainer, near, far = network.trainer_link(), network.attacker_link(1), network.attacker_link(2)
    sent = [trainer.free_parameter_slot() for _ in range(2)]
    for slot in sent:
        assert slot is not None
        trainer.broadcast(slot)
        trainer.recycle(slot)
    assert near.poll().parameters
    fresh = [trainer.free_parameter_slot() for _ in range(3)]
    assert not any(slot is other for slot in sent for other in fresh)
    assert far.poll().parameters
    near.poll()
    trainer.poll()
    again = trainer.free_parameter_slot()
    assert any(again is slot for slot in sent)


def new_slot() -> ParameterSlot:
    return ParameterSlot(64, plain_memory)


def test_attacker_that_takes_nothing_is_sent_a_few_versions_and_then_only_what_is_needed() -> None:
    outbox = Outbox()
    slots = [new_slot() for _ in range(LONGEST_QUEUE + 3)]
    for slot in slots:
        outbox.add(slot, [1], [])
    due = outbox.due()
    assert [sending.slot for sending, _ in due] == slots[:LONGEST_QUEUE]
    outbox.withdraw(slots[0])
    outbox.withdraw(slots[LONGEST_QUEUE])
    assert outbox.holds(slots[0]), "it is on its way"
    assert not outbox.holds(slots[LONGEST_QUEUE])
    for sending, attacker in due:
        outbox.taken(sending, attacker)
    assert not outbox.holds(slots[0])
    assert [sending.slot for sending, _ in outbox.due()] == slots[LONGEST_QUEUE + 1 :]


def test_the_others_wait_for_those_that_are_first_and_not_for_ever() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    taken, left = new_slot(), new_slot()
    outbox.add(taken, [1, 2, 3], [3])
    (first,) = outbox.due()
    assert first[1] == 3 and outbox.due() == []
    outbox.taken(*first)
    assert [attacker for _, attacker in outbox.due()] == [1, 2]
    outbox.add(left, [1, 2, 3], [3])
    assert [attacker for _, attacker in outbox.due()] == [3]
    clock.now = 1.01 * HEAD_START_SECONDS
    assert [attacker for _, attacker in outbox.due()] == [1, 2]


READ = ["taken, then released", "released before it is known to be taken"]


@pytest.mark.parametrize("order", READ)
def test_version_read_in_place_is_held_until_it_is_taken_and_released(order: str) -> None:
    outbox = Outbox[str]()
    outbox.add("v0", [1, 2], first=[], in_place=[2])
    (near, _), (far, _) = sorted(outbox.due(), key=lambda due: -due[1])
    ends = [lambda: outbox.taken(near, 2), lambda: outbox.released(2, "v0")]
    outbox.taken(far, 1)
    for end in ends if order == READ[0] else reversed(ends):
        assert outbox.holds("v0")
        end()
    assert not outbox.holds("v0")


@pytest.mark.parametrize("is_dead", [True, False])
def test_attacker_that_is_gone_reads_nothing_more(is_dead: bool) -> None:
    outbox = Outbox[str]()
    for version in ("v0", "v1"):
        outbox.add(version, [1], first=[], in_place=[1])
    for sending, attacker in outbox.due():
        outbox.taken(sending, attacker)
    assert outbox.holds("v0") and outbox.holds("v1")
    outbox.cut_off(1, is_dead=is_dead)
    assert not outbox.holds("v0") and not outbox.holds("v1")


def test_withdrawn_version_has_only_readers_that_were_told_of_it() -> None:
    outbox = Outbox[int]()
    for version in range(LONGEST_QUEUE + 1):
        outbox.add(version, [1], first=[], in_place=[1])
    assert len(outbox.due()) == LONGEST_QUEUE
    for version in range(LONGEST_QUEUE + 1):
        outbox.withdraw(version)
    assert [outbox.holds(version) for version in range(LONGEST_QUEUE + 1)] == [True] * 4 + [False]


@pytest.mark.parametrize("is_dead", [True, False], ids=["dead", "silent"])
def test_only_a_dead_attacker_gives_back_what_is_on_its_way(is_dead: bool) -> None:
    outbox = Outbox()
    sent, unsent = new_slot(), new_slot()
    outbox.add(sent, [1], [])
    outbox.due()
    outbox.add(unsent, [1], [])
    outbox.cut_off(1, is_dead=is_dead)
    assert outbox.holds(sent) == (not is_dead)
    assert not outbox.holds(unsent)


def test_version_that_a_dead_attacker_had_still_taken_changes_nothing() -> None:
    outbox = Outbox()
    sent = new_slot()
    outbox.add(sent, [1, 2], [])
    due = outbox.due()
    outbox.cut_off(1, is_dead=True)
    for sending, attacker in due:
        assert outbox.holds(sent)
        outbox.taken(sending, attacker)
    assert not outbox.holds(sent)


def test_time_in_which_the_rank_itself_was_stopped_is_no_waiting() -> None:
    clock = Clock()
    wait = Wait(2.5, clock=clock, sleep=clock.sleep)
    for _ in range(2):
        wait.pause(lambda: "rank 3")
        clock.now += 1000.0
    wait.pause(lambda: "rank 3")


def _watched(seconds: float, deadline: float) -> subprocess.CompletedProcess[str]:
    """A process that makes a watched call of so many seconds, after many short ones."""
    program = (
        "import time; from mpiadv.comm.watchdog import Watchdog\n"
        f"watchdog = Watchdog('rank 1 on node7', {deadline})\n"
        f"for seconds in [0.01] * 40 + [{seconds}]:\n"
        "    with watchdog.watching():\n"
        "        time.sleep(seconds)\n"
    )
    line = [sys.executable, "-c", program]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def test_rank_that_mpi_does_not_let_go_of_ends_and_asks_to_be_resumed() -> None:
    completed = _watched(30.0, 0.2)
    assert completed.returncode == 75
    assert completed.stderr == (
        "mpiadv: error: rank 1 on node7 has been inside MPI for 0.2 s, perhaps since another rank "
        "died: go on with --resume\n"
    )


def test_many_calls_into_mpi_are_no_long_one() -> None:
    assert _watched(0.01, 0.2).returncode == 0


COPIES = {
    "one_host": ([[0, 1, 2]], "aaa", "one copy on 1 host, laid out by rank 0"),
    "two_hosts": (
        [[0, 1], [2, 3]], "aabb",
        "one copy on each of 2 hosts, laid out by rank 0 and 1 leader (rank 2)",
    ),
    "rank_that_is_lost": (
        [[0, 1], [3]], "aabb",
        "one copy on each of 2 hosts, laid out by rank 0 and 1 leader (rank 3)",
    ),
    "nothing_shared": (
        [[0], [1], [2], [3]], "aabb",
        "4 copies on 2 hosts, where not all share memory, laid out by rank 0 and 3 leaders "
        "(ranks 1, 2, 3)",
    ),
    "many_hosts": (
        [[rank] for rank in range(11)], "abcdefghijk",
        "one copy on each of 11 hosts, laid out by rank 0 and 10 leaders "
        "(ranks 1, 2, 3, 4, 5, 6, 7, 8 and 2 more)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "hosts", "said"), COPIES.values(), ids=COPIES)
def test_copies_of_a_version_are_told_with_who_makes_them(
    groups: list[list[int]], hosts: str, said: str
) -> None:
    assert copies_told(groups, list(hosts)) == said
