"""The trainer's end of the links over MPI: all is nonblocking, and moved on by `poll`."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.library import FAULT_TOLERANT, MPI
from mpiadv.comm.links import (
    SPARE_BROADCASTS,
    Allocate,
    BatchSlot,
    Delivery,
    LinkShape,
    ParameterSlot,
    most_parameter_slots,
)
from mpiadv.comm.messages import (
    ALL_PLACES,
    Bytes,
    Call,
    Farewell,
    Header,
    Release,
    Word,
    erased,
    is_sealed,
    read,
    sealed,
)
from mpiadv.comm.requests import Requests
from mpiadv.comm.roster import Absence, Roster
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.comm.watchdog import Watchdog
from mpiadv.contract.outbox import Outbox, Sending
from mpiadv.contract.turns import Grant


def _announcement(slot: ParameterSlot) -> Bytes:
    """The header of a version in shared memory, with its place there."""
    return sealed(replace(slot.header, place=slot.place)).view(np.uint8)


class MpiTrainerLink:
    """The trainer's end, on rank 0; every other rank of `roster` is an attacker.

    A version is sent to each attacker by itself. `Ibcast` cannot say who needs it most, and one
    that is lost would be everybody's loss. Its `readers` have it in memory that they share with the
    trainer: they are sent its place there, and say when they read it no more. The last version goes
    to all as a whole, as it outlives the link.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        roster: Roster,
        watchdog: Watchdog,
        shape: LinkShape,
        allocate: Allocate,
        shared: SharedSlots | None = None,
        readers: Collection[int] = (),
    ) -> None:
        self._channel = Channel(comm)
        self._roster = roster
        self._shape = shape
        self._allocate = allocate
        self._sends = Requests(comm, watchdog)
        self._receives = Requests(comm, watchdog)
        self._outbox = Outbox[ParameterSlot]()
        self._shared = shared
        self._readers = readers
        self._num_slots = 0
        self._most_slots = most_parameter_slots(shape, len(roster.attackers), len(readers))
        usual = shape.num_versions + SPARE_BROADCASTS
        self._free_parameters = [self._new_parameter_slot() for _ in range(usual)]
        self._recycled: list[ParameterSlot] = []
        self._free_batches: list[BatchSlot] = []
        self._arrived: list[Delivery] = []
        self._lost: list[int] = []
        self._farewells: dict[int, Farewell] = {}
        self._began = time.perf_counter()
        for attacker in self.attackers:
            self._expect_farewell(attacker)
        for reader in readers:
            self._expect_release(reader)
        for rank in roster.dismissed:
            # It may have built its link before it could hear.
            self._say(rank, Call(word=Word.LEAVE))

    @property
    def attackers(self) -> list[int]:
        return self._roster.attackers

    @property
    def readers(self) -> list[int]:
        """The attackers that began to read versions where they lie."""
        return list(self._readers)

    @property
    def survives_losses(self) -> bool:
        return FAULT_TOLERANT

    def free_parameter_slot(self) -> ParameterSlot | None:
        if not self._free_parameters and self._num_slots < self._most_slots:
            # Attackers that do not take what they were sent, or go on reading it, keep slots.
            return self._new_parameter_slot()
        return self._free_parameters.pop() if self._free_parameters else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        slot.seal()
        is_last = bool(slot.header.stop)
        self._outbox.add(slot, self.attackers, first, in_place=() if is_last else self._readers)
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        self._outbox.withdraw(slot)
        self._recycled.append(slot)
        self._free_recycled()

    def grant(self, grant: Grant) -> None:
        attacker = grant.attacker
        if attacker not in self.attackers:
            return
        slot = self._free_batches.pop() if self._free_batches else self._new_batch_slot()
        slot.erase()
        delivery = Delivery(attacker=attacker, slot=slot)
        message = self._channel.spec(slot.buffer)
        self._receives.start(
            attacker,
            lambda: self._channel.comm.Irecv(message, attacker, Tag.BATCH),
            lambda: self._take_in(delivery),
        )
        self._say(attacker, Call(word=Word.GRANT, grant=grant))

    def poll(self) -> list[Delivery]:
        for attacker in self._sends.poll() | self._receives.poll():
            self._lose(attacker)
        self._send_versions()
        arrived, self._arrived = self._arrived, []
        return arrived

    def release(self, slot: BatchSlot) -> None:
        self._free_batches.append(slot)

    def call_last(self) -> None:
        for attacker in self.attackers:
            self._say(attacker, Call(word=Word.LAST_CALL))

    def keep_alive(self) -> None:
        for attacker in self.attackers:
            self._say(attacker, Call(word=Word.ALIVE))

    def take_lost(self) -> list[int]:
        lost, self._lost = self._lost, []
        return lost

    def doubt(self, attacker: int, why: str) -> None:
        self._roster.doubted[attacker] = why

    def take_doubted(self) -> dict[int, str]:
        return self._roster.take_doubted()

    def silent_seconds(self, attacker: int) -> float:
        since = self._sends.oldest(attacker)
        return 0.0 if since is None else time.perf_counter() - since

    def since_sign_of_life(self, attacker: int) -> float:
        signs = (self._sends.last_sign, self._receives.last_sign)
        last = max(sign.get(attacker, self._began) for sign in signs)
        return time.perf_counter() - last

    def dismiss(self, attacker: int) -> None:
        if self._roster.lose(attacker, Absence.DISMISSED):
            self._outbox.cut_off(attacker, is_dead=False)
            self._free_recycled()
            self._say(attacker, Call(word=Word.LEAVE))

    def farewells(self) -> dict[int, Farewell]:
        return dict(self._farewells)

    def name(self, attacker: int) -> str:
        return self._roster.name(attacker)

    def pending(self) -> int:
        there = self.attackers
        underway = sum(self._sends.of(a) + self._receives.of(a) for a in there)
        return underway + self._outbox.num_due(there)

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")
        self._channel.free()

    def _send_versions(self) -> None:
        for sending, attacker in self._outbox.due():
            in_place = attacker in sending.in_place
            message = _announcement(sending.slot) if in_place else sending.slot.buffer
            self._sends.start(
                attacker,
                partial(
                    self._channel.comm.Issend, self._channel.spec(message), attacker, Tag.VERSION
                ),
                partial(self._taken, sending, attacker),
                keeps=message,
            )

    def _taken(self, sending: Sending[ParameterSlot], attacker: int) -> None:
        self._outbox.taken(sending, attacker)
        self._free_recycled()

    def _free_recycled(self) -> None:
        """Slots that nobody has yet to get, or may still read, may be filled again."""
        held = [slot for slot in self._recycled if self._outbox.holds(slot)]
        self._free_parameters += [slot for slot in self._recycled if slot not in held]
        self._recycled = held

    def _take_in(self, delivery: Delivery) -> None:
        attacker = delivery.attacker
        if not self._roster.believes(attacker):
            self.release(delivery.slot)
        elif delivery.slot.is_from(attacker):
            self._arrived.append(delivery)
        else:
            self.doubt(attacker, "sent a batch that did not arrive whole")
            self.release(delivery.slot)

    def _lose(self, attacker: int) -> None:
        """An attacker died; one that has said farewell before owes nothing."""
        was_there = self._roster.lose(attacker, Absence.DIED)
        self._outbox.cut_off(attacker, is_dead=True)
        self._free_recycled()
        if was_there and attacker not in self._farewells:
            self._lost.append(attacker)

    def _new_parameter_slot(self) -> ParameterSlot:
        self._num_slots += 1
        if self._shared is None:
            return ParameterSlot(self._shape.parameter_bytes, self._allocate)
        slot = self._shared[self._num_slots]
        slot.buffer.fill(0)  # touches every page now, as in memory of its own
        return slot

    def _new_batch_slot(self) -> BatchSlot:
        return BatchSlot(self._shape.batch, self._allocate)

    def _say(self, attacker: int, call: Call) -> None:
        """That it was taken is a sign of life."""
        message = sealed(call)
        self._sends.start(
            attacker,
            lambda: self._channel.comm.Issend([message, MPI.BYTE], attacker, Tag.CALL),
            keeps=message,
        )

    def _expect_farewell(self, attacker: int) -> None:
        message = erased(Farewell)
        self._receives.start(
            attacker,
            lambda: self._channel.comm.Irecv([message, MPI.BYTE], attacker, Tag.FAREWELL),
            lambda: self._part_from(attacker, message),
        )

    def _expect_release(self, reader: int) -> None:
        message = erased(Release)
        self._receives.start(
            reader,
            lambda: self._channel.comm.Irecv([message, MPI.BYTE], reader, Tag.RELEASE),
            lambda: self._released(reader, message),
        )

    def _released(self, reader: int, message: Header) -> None:
        if not is_sealed(message):
            self.doubt(reader, "said of a version what did not arrive whole")
        elif (place := read(message, Release).place) == ALL_PLACES:
            self._outbox.released(reader)
        else:
            assert self._shared is not None
            self._outbox.released(reader, self._shared[place])
            self._expect_release(reader)
        self._free_recycled()

    def _part_from(self, attacker: int, message: Header) -> None:
        if is_sealed(message):
            self._farewells[attacker] = read(message, Farewell)
        else:
            self.doubt(attacker, "said a farewell that did not arrive whole")
