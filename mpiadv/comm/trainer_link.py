"""The trainer's end of the links: all is nonblocking, and moved on by `poll`. Knows no MPI."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.links import (
    Allocate,
    BatchSlot,
    Delivery,
    LinkShape,
    ParameterSlot,
    most_parameter_slots,
)
from mpiadv.comm.messages import ALL_PLACES, Call, Farewell, Release, Word
from mpiadv.comm.roster import Absence, Roster
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.contract.outbox import Outbox, Sending
from mpiadv.contract.turns import Grant


class TrainerLink:
    """The trainer's end, on rank 0; every other rank of `roster` is an attacker.

    A version is sent to each attacker by itself. `Ibcast` cannot say who needs it most, and one
    that is lost would be everybody's loss. Its `readers` have it in memory that they share with the
    trainer: they are sent its place there, and say when they read it no more. The last version goes
    to all as a whole, as it outlives the link.
    """

    def __init__(
        self,
        channel: Channel,
        roster: Roster,
        shape: LinkShape,
        allocate: Allocate,
        shared: SharedSlots | None = None,
        readers: Collection[int] = (),
        *,
        survives_losses: bool = False,
    ) -> None:
        self._channel = channel
        self.survives_losses = survives_losses
        """Whether the job goes on without an attacker that is lost."""
        self._roster = roster
        self._shape = shape
        self._allocate = allocate
        self._outbox = Outbox[ParameterSlot]()
        self._shared = shared
        self.readers = list(readers)
        """Those that began to read versions where they lie."""
        self._num_slots = 0
        self._most_slots = most_parameter_slots(shape, len(roster.attackers), len(readers))
        self._free_parameters: list[ParameterSlot] = []
        self._recycled: list[ParameterSlot] = []
        self._free_batches: list[BatchSlot] = []
        self._arrived: list[Delivery] = []
        self._lost: list[int] = []
        self._farewells: dict[int, Farewell] = {}
        for attacker in self.attackers:
            part = partial(self._part_from, attacker)
            self._channel.expect(attacker, Farewell, Tag.FAREWELL, part)
        for reader in readers:
            self._expect_release(reader)
        for rank in roster.dismissed:
            # It may have built its link before it could hear.
            self._say(rank, Call(word=Word.LEAVE))

    @property
    def attackers(self) -> list[int]:
        """Those that are there: one that died is not, from the `poll` on that found it out."""
        return self._roster.attackers

    def free_parameter_slot(self) -> ParameterSlot | None:
        """A slot that nothing uses any more, None while there is none."""
        if self._free_parameters:
            return self._free_parameters.pop()
        # Attackers that do not take what they were sent, or go on reading it, keep slots.
        return self._new_parameter_slot() if self._num_slots < self._most_slots else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        """Send a version to every attacker; the slot stays readable.

        Those in `first` get it ahead of the others. Each gets the versions in order.
        """
        slot.seal()
        is_last = bool(slot.header.stop)
        self._outbox.add(slot, self.attackers, first, in_place=() if is_last else self.readers)
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        """Say that the slot's version is not needed any more: who is still to get it need not."""
        self._outbox.withdraw(slot)
        self._recycled.append(slot)
        self._free_recycled()

    def grant(self, grant: Grant) -> None:
        """Let an attacker craft a ticket, with a receive posted for its batch."""
        attacker = grant.attacker
        if attacker not in self.attackers:
            return
        free = self._free_batches
        slot = free.pop() if free else BatchSlot(self._shape.batch, self._allocate)
        slot.erase()
        delivery = Delivery(attacker=attacker, slot=slot)
        self._channel.receive(attacker, slot.buffer, Tag.BATCH, lambda: self._take_in(delivery))
        self._say(attacker, Call(word=Word.GRANT, grant=grant))

    def poll(self) -> list[Delivery]:
        """Make progress on every message; returns what has arrived. Never blocks."""
        for attacker in self._channel.poll():
            self._lose(attacker)
        self._send_versions()
        arrived, self._arrived = self._arrived, []
        return arrived

    def release(self, slot: BatchSlot) -> None:
        """Say that a delivered batch has been consumed."""
        self._free_batches.append(slot)

    def call_last(self) -> None:
        """Tell every attacker that no grant follows."""
        for attacker in self.attackers:
            self._say(attacker, Call(word=Word.LAST_CALL))

    def keep_alive(self) -> None:
        """Tell every attacker to go on waiting."""
        for attacker in self.attackers:
            self._say(attacker, Call(word=Word.ALIVE))

    def take_lost(self) -> list[int]:
        """The attackers that have died since this was last asked."""
        lost, self._lost = self._lost, []
        return lost

    def doubt(self, attacker: int, why: str) -> None:
        """Believe nothing more that comes from an attacker."""
        self._roster.doubted[attacker] = why

    def take_doubted(self) -> dict[int, str]:
        """The attackers that are doubted and why, those told before left out."""
        return self._roster.take_doubted()

    def silent_seconds(self, attacker: int) -> float:
        """For how long an attacker has not taken what it was sent; 0 where it has taken all."""
        return self._channel.silent_seconds(attacker)

    def since_sign_of_life(self, attacker: int) -> float:
        """Seconds since a message to or from an attacker was complete."""
        return self._channel.since_sign_of_life(attacker)

    def dismiss(self, attacker: int) -> None:
        """Do without an attacker that is silent; should it come back, it is told to leave."""
        if self._roster.lose(attacker, Absence.DISMISSED):
            self._outbox.cut_off(attacker, is_dead=False)
            self._free_recycled()
            self._say(attacker, Call(word=Word.LEAVE))

    def farewells(self) -> dict[int, Farewell]:
        """The attackers that have said farewell so far."""
        return dict(self._farewells)

    def name(self, attacker: int) -> str:
        """The attacker and its host, as people are told of it."""
        return self._roster.name(attacker)

    def pending(self) -> int:
        """How many messages are on their way, to or from attackers that are there."""
        underway = sum(map(self._channel.pending, self.attackers))
        return underway + self._outbox.num_due(self.attackers)

    def free(self) -> None:
        """Release the link; only when nothing is pending."""
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")
        self._channel.free()

    def _send_versions(self) -> None:
        for sending, attacker in self._outbox.due():
            slot, taken = sending.slot, partial(self._taken, sending, attacker)
            if attacker in sending.in_place:
                announced = replace(slot.header, place=slot.place)
                self._channel.say(attacker, announced, Tag.VERSION, taken)
            else:
                self._channel.send(attacker, slot.buffer, Tag.VERSION, taken)

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

    def _say(self, attacker: int, call: Call) -> None:
        """That it was taken is a sign of life."""
        self._channel.say(attacker, call, Tag.CALL)

    def _expect_release(self, reader: int) -> None:
        self._channel.expect(reader, Release, Tag.RELEASE, partial(self._released, reader))

    def _released(self, reader: int, said: Release | None) -> None:
        if said is None:
            self.doubt(reader, "said of a version what did not arrive whole")
        elif said.place == ALL_PLACES:
            self._outbox.released(reader)
        else:
            assert self._shared is not None
            self._outbox.released(reader, self._shared[said.place])
            self._expect_release(reader)
        self._free_recycled()

    def _part_from(self, attacker: int, farewell: Farewell | None) -> None:
        if farewell is None:
            self.doubt(attacker, "said a farewell that did not arrive whole")
        else:
            self._farewells[attacker] = farewell
