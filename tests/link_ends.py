"""Both ends of a link over real MPI, which check what comes, for tests on three ranks."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from made_records import batch_header, made, version_header

from mpiadv.comm.links import BatchSlot, LinkShape, ParameterSlot, plain_memory
from mpiadv.comm.messages import BATCH_HEADER, SEAL_BYTES, BatchShape, Farewell, Fate
from mpiadv.comm.waiting import Wait
from mpiadv.comm.world import World
from mpiadv.contract.accounts import Probed, RankWork
from mpiadv.contract.tickets import StalenessRule
from mpiadv.contract.turns import TRAINER, Grant

RULE = StalenessRule(max_staleness=6, final_staleness=2, publish_every=2, trainer_steps=1)
OUTSTANDING = 3
NUM_VERSIONS = 30
NEVER_SENT = 0x55


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
        until(lambda: not link.poll() and sorted(link.farewells()) == [1, 2], "farewells")
        link.dissolve()
        until(lambda: not link.poll() and not link.pending(), "the last words to be taken")
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

    @property
    def num_unsent(self) -> int:
        """How many messages the trainer has yet to take."""
        return self.link._channel.num_sends(TRAINER)

    def has_answered(self) -> bool:
        """Answer what was granted; whether there was anything, and the trainer has taken it."""
        self.has_all()
        self._answer()
        return bool(self.answered) and not self.num_unsent

    def _turn(self) -> bool:
        is_stopped = self.has_all()
        self._answer()
        return self._last_call and is_stopped and not self._grants

    def _answer(self) -> None:
        while self._grants:
            slot = self.link.free_batch_slot()
            assert (slot is None) == (self.num_unsent == OUTSTANDING), "reused while in flight"
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
    probe = Probed(step=4, rank=rank, accuracy=0.25, loss=2.25, seconds=0.5)
    work = made(
        RankWork, rank=rank, host=host, tickets=num_tickets, craft_seconds=1.5,
        parameter_wait_seconds=2.5, trainer_wait_seconds=3.5, grant_wait_seconds=4.5,
    )  # fmt: skip
    return Farewell(work=work, probe=probe)


def is_dropped(ticket: int) -> bool:
    """Every fourth ticket is dropped; its body is `NEVER_SENT` and must not travel."""
    return ticket % 4 == 3
