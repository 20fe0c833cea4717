"""The trainer's end of the links: all is nonblocking, and moved on by `poll`. Knows no MPI."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from mpiadv.comm.broadcasts import Broadcasts
from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.homes import Home, Places
from mpiadv.comm.links import (
    Allocate,
    BatchSlot,
    Delivery,
    LinkShape,
    ParameterSlot,
    Pin,
    most_parameter_slots,
    no_device,
)
from mpiadv.comm.messages import Call, Farewell, Word
from mpiadv.comm.roster import Absence, Roster
from mpiadv.comm.shelf import Shelf
from mpiadv.contract.turns import TRAINER, Grant

ALL_LEADERS = -1
"""Whoever a broadcast goes to, in the place of a rank."""

PATIENCE_SHARE = 0.05
"""Share of the deadline for which a leader that does not take a broadcast may hold up the others;
after that the trainer sends to each by itself, where Open MPI's fault tolerance lets it."""


class TrainerLink:
    """The trainer's end, on rank 0; every other rank of `roster` is an attacker.

    Versions lie in memory that the ranks of its host share: these are told where. To the other
    hosts they go by a broadcast, to one leader each. Once that has failed, as when a leader is
    lost, each leader is sent them by itself for the rest of the job.
    """

    def __init__(
        self,
        channel: Channel,
        roster: Roster,
        shape: LinkShape,
        allocate: Allocate,
        home: Home,
        pin: Pin = no_device,
        *,
        survives_losses: bool = False,
        deadline_seconds: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._channel = channel
        self.survives_losses = survives_losses
        """Whether the job goes on without an attacker that is lost."""
        self._deadline_seconds = deadline_seconds
        self._roster = roster
        self._shape = shape
        self._allocate = allocate
        self.groups = [list(group) for group in home.groups]
        """Of the ranks that are there; the first of each leads it, the trainer that of its host."""
        self._broadcasts: Broadcasts | None = home.broadcasts
        places, readers = Places(home, TRAINER, shape, allocate, pin), home.group_of(TRAINER)[1:]
        most = most_parameter_slots(shape, len(roster.attackers), len(readers))
        self._shelf = Shelf(channel, places.new_slot, most, readers, self.doubt)
        self._needed: list[ParameterSlot] = []
        """Versions in their order that a ticket may still need."""
        self._free_batches: list[BatchSlot] = []
        self._arrived: list[Delivery] = []
        self._lost: list[int] = []
        self._farewells: dict[int, Farewell] = {}
        self._is_dissolved = False
        self._unanswered: Counter[int] = Counter()
        """Words to those that were told to go, and may be gone before they hear them."""
        for attacker in self.attackers:
            self._expect_farewell(attacker)
        for rank, why in roster.absent.items():
            self._do_without(rank, is_dead=why is Absence.DIED)
        for rank in roster.dismissed:
            # It may have built its link before it could hear.
            self._say(rank, Call(word=Word.LEAVE))

    @property
    def attackers(self) -> list[int]:
        """Those that are there: one that died is not, from the `poll` on that found it out."""
        return self._roster.attackers

    def free_parameter_slot(self) -> ParameterSlot | None:
        """A slot that nothing uses any more, None while there is none."""
        return self._shelf.free_slot()

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        """Let a version go to every attacker; the slot stays readable.

        Those in `first` get it ahead of the others. Each gets the versions in order.
        """
        slot.seal()
        self._needed.append(slot)
        to = [ALL_LEADERS] if self._broadcasts and self._leaders() else self._leaders()
        self._shelf.put(slot, to, [self._receiver_for(rank) for rank in first])
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        """Say that the slot's version is not needed any more: who is still to get it need not."""
        self._needed = [needed for needed in self._needed if needed is not slot]
        self._shelf.withdraw(slot)
        self._shelf.give_back(slot)

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
        if self._broadcasts and not (self._broadcasts.poll() and self._is_patient()):
            self._fall_back()
        self._send_versions()
        arrived, self._arrived = self._arrived, []
        return arrived

    def release(self, slot: BatchSlot) -> None:
        """Say that a delivered batch has been consumed."""
        self._free_batches.append(slot)

    def call_last(self) -> None:
        """Tell every attacker that no grant follows."""
        self._say_to_all(Word.LAST_CALL)

    def keep_alive(self) -> None:
        """Tell every attacker to go on waiting."""
        self._say_to_all(Word.ALIVE)

    def dissolve(self) -> None:
        """Tell every attacker, once all have said farewell, that it may go."""
        self._say_to_all(Word.END)
        self._is_dissolved = True

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
            self._do_without(attacker, is_dead=False)
            self._say(attacker, Call(word=Word.LEAVE))

    def farewells(self) -> dict[int, Farewell]:
        """The attackers that have said farewell so far."""
        return dict(self._farewells)

    def name(self, attacker: int) -> str:
        """The attacker and its host, as people are told of it."""
        return self._roster.name(attacker)

    def number(self, rank: int) -> int:
        """What people know a rank of the team by."""
        return self._roster.number(rank)

    def pending(self) -> int:
        """How many messages are on their way, to or from attackers that are there."""
        there = set(self.attackers)
        underway = sum(map(self._channel.pending, there))
        underway -= sum(self._unanswered[attacker] for attacker in there)
        underway -= len(self._farewells.keys() & there)
        underway += self._broadcasts.num_underway if self._broadcasts else 0
        return underway + self._shelf.num_due([*there, ALL_LEADERS])

    def free(self) -> None:
        """Release the link; only when nothing is pending."""
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")
        self._channel.free()
        if self._broadcasts:
            self._broadcasts.free()

    def _leaders(self) -> list[int]:
        """Those of the other groups that have anybody left."""
        return [group[0] for group in self.groups[1:] if group]

    def _receiver_for(self, rank: int) -> int:
        """To whom a version goes that is to reach this rank."""
        if rank in self._shelf.readers:
            return rank
        leaders = (group[0] for group in self.groups if rank in group)
        return ALL_LEADERS if self._broadcasts else next(leaders, rank)

    def _send_versions(self) -> None:
        self._shelf.send(self._send_whole)

    def _send_whole(self, rank: int, slot: ParameterSlot, taken: Callable[[], None]) -> None:
        if rank != ALL_LEADERS:
            self._channel.send(rank, slot.buffer, Tag.VERSION, taken)
        elif self._broadcasts:
            self._broadcasts.start(slot.buffer, taken)

    def _is_patient(self) -> bool:
        """Whether no leader holds up the others for too long, or nothing can be done about it."""
        assert self._broadcasts is not None
        patience = PATIENCE_SHARE * self._deadline_seconds()
        return not self.survives_losses or self._broadcasts.waited_seconds < patience

    def _fall_back(self) -> None:
        """Send to each leader by itself from now on, first what it may lack."""
        assert self._broadcasts is not None
        self._broadcasts.revoke()
        self._broadcasts = None
        # Leaders that have not heard of it yet may still be receiving what is under way.
        self._shelf.lose(ALL_LEADERS, is_dead=False)
        for leader in self._leaders():
            self._send_needed(leader)

    def _send_needed(self, leader: int) -> None:
        if self._is_dissolved:
            return  # everybody has the last version
        self._say(leader, Call(word=Word.SENDS))
        for slot in self._needed:
            self._shelf.put_again(slot, leader)

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
        self._do_without(attacker, is_dead=True)
        if was_there and attacker not in self._farewells:
            self._lost.append(attacker)

    def _do_without(self, attacker: int, *, is_dead: bool) -> None:
        self._shelf.lose(attacker, is_dead=is_dead)
        for group in self.groups[1:]:
            if attacker in group:
                self._leave_group(attacker, group)

    def _leave_group(self, attacker: int, group: list[int]) -> None:
        """Tell the others of its host; if it led them, the next one does."""
        was_leader = group[0] == attacker
        group.remove(attacker)
        for rank in group:
            self._say(rank, Call(word=Word.GONE, gone=attacker))
        if was_leader and self._broadcasts:
            self._fall_back()
        elif was_leader and group:
            self._send_needed(group[0])

    def _say_to_all(self, word: Word) -> None:
        for attacker in self.attackers:
            self._say(attacker, Call(word=word))

    def _say(self, attacker: int, call: Call) -> None:
        """That it was taken is a sign of life."""
        if not self._is_dissolved:
            self._channel.say(attacker, call, Tag.CALL)
            return
        self._unanswered[attacker] += 1
        heard = partial(self._unanswered.subtract, [attacker])
        self._channel.say(attacker, call, Tag.CALL, heard)

    def _expect_farewell(self, attacker: int) -> None:
        """Also one that does not come, after the first: so MPI tells of its death until the end."""
        part = partial(self._part_from, attacker)
        self._channel.expect(attacker, Farewell, Tag.FAREWELL, part)

    def _part_from(self, attacker: int, farewell: Farewell | None) -> None:
        if farewell is None:
            self.doubt(attacker, "said a farewell that did not arrive whole")
        else:
            self._farewells[attacker] = farewell
            self._expect_farewell(attacker)
