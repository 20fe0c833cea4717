"""An attacker's end of the links: all is nonblocking, and moved on by `poll`. Knows no MPI."""

from collections import deque
from functools import partial

from mpiadv.comm.broadcasts import Broadcasts
from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.homes import Home, Places
from mpiadv.comm.links import (
    Allocate,
    BatchSlot,
    Incoming,
    LinkShape,
    ParameterSlot,
    Pin,
    most_parameter_slots,
    no_device,
)
from mpiadv.comm.messages import ALL_PLACES, Call, Farewell, Release, VersionHeader, Word
from mpiadv.comm.shelf import Shelf
from mpiadv.contract.turns import TRAINER
from mpiadv.process.errors import TrainerLostError

_NONE = -1, 0
"""Comes before all versions."""


class AttackerLink:
    """An attacker's end. It reads versions where the leader of its group lays them out.

    If it leads itself, it receives them, by the trainer's broadcast or from the trainer alone, and
    lays them out for the others. It takes the lead when those before it in the group are gone.
    """

    def __init__(
        self,
        channel: Channel,
        shape: LinkShape,
        allocate: Allocate,
        home: Home,
        pin: Pin = no_device,
    ) -> None:
        self.rank = channel.rank
        self._channel = channel
        self._shape = shape
        self._allocate = allocate
        self._incoming = Incoming()
        self._places = Places(home, self.rank, shape, allocate, pin)
        self._group = home.group_of(self.rank)
        self._broadcasts: Broadcasts | None = home.broadcasts
        self._shelf: Shelf | None = None
        self._laid_out: deque[ParameterSlot] = deque()
        self._is_receiving = self._has_last = False
        self._newest = self._newest_laid_out = _NONE
        self._num_batches = 0
        self._free_batches: list[BatchSlot] = []
        self._has_parted = self._has_ended = False
        self._find_place()
        self._await_call()

    @property
    def leader(self) -> int:
        """Who lays out versions for this rank."""
        return self._group[0]

    def poll(self) -> Incoming:
        """Make progress on every message; returns what has arrived. Never blocks.

        Raises:
            DismissedError: the trainer has given this rank up.
            TrainerLostError: the trainer is gone.
        """
        # Of others the trainer tells; it may be gone itself once it has said its last word.
        if TRAINER in self._channel.poll() and not self._has_ended:
            raise _trainer_lost()
        if self._broadcasts:
            self._broadcasts.poll()  # that they have failed, the trainer tells
        if self._shelf:
            self._receive()
            self._shelf.send(self._refuse)
        incoming, self._incoming = self._incoming, Incoming()
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        """Say that the slot's version is not needed any more."""
        if self._shelf and self._shelf.owns(slot):
            self._shelf.give_back(slot)
        elif not self._has_parted and self._places.owner(slot.place) == self.leader:
            self._release(slot.place)

    def free_batch_slot(self) -> BatchSlot | None:
        """A slot whose last batch has been received, None while there is none."""
        if not self._free_batches and self._num_batches < self._shape.outstanding:
            # One or two are enough while the trainer takes them.
            self._num_batches += 1
            return BatchSlot(self._shape.batch, self._allocate)
        return self._free_batches.pop() if self._free_batches else None

    def send(self, slot: BatchSlot) -> None:
        """Start sending a batch; the header alone travels where it says that there is none."""
        self._channel.send(TRAINER, slot.seal(), Tag.BATCH, lambda: self._free_batches.append(slot))

    def bid_farewell(self, farewell: Farewell) -> None:
        """Start sending the last message."""
        self._has_parted = True
        self._release_all()
        self._channel.say(TRAINER, farewell, Tag.FAREWELL)

    def pending(self) -> int:
        """How many messages are on their way, or still to come, until the trainer's last word."""
        underway = sum(map(self._channel.pending, {TRAINER, *self._group} - {self.rank}))
        underway -= self._has_ended  # whoever is gone is told of until this rank is, too
        underway += self._broadcasts.num_underway if self._broadcasts else 0
        return underway + (self._shelf.num_due(self._group) if self._shelf else 0)

    def free(self) -> None:
        """Release the link; only when nothing is pending."""
        if pending := self.pending():
            raise RuntimeError(f"{pending} messages are on their way")
        self._channel.free()
        if self._broadcasts:
            self._broadcasts.free()

    def _find_place(self) -> None:
        """Lead the group, or listen to who does."""
        self._has_last = False
        if self.leader != self.rank:
            self._listen()
            return
        readers = self._group[1:]
        most = most_parameter_slots(self._shape, len(readers), len(readers))
        self._shelf = Shelf(self._channel, self._places.new_slot, most, readers, self._lose)
        self._receive()

    def _listen(self) -> None:
        told = partial(self._told, self.leader)
        self._channel.expect(self.leader, VersionHeader, Tag.VERSION, told)

    def _told(self, leader: int, header: VersionHeader | None) -> None:
        """Where a version lies; what somebody says who leads no more is out of date."""
        if leader != self.leader:
            return
        if header is None:
            if leader == TRAINER:
                raise _trainer_lost()
            return  # it dies: the trainer will tell
        slot = self._places[header.place]
        slot.goes_by(header)
        self._take_up(slot)
        if not header.stop:
            self._listen()

    def _receive(self) -> None:
        """Have a receive under way while there is room, until the last version is there."""
        assert self._shelf is not None
        if self._is_receiving or self._has_last or (slot := self._shelf.free_slot()) is None:
            return
        if slot in self._laid_out:
            self._laid_out.remove(slot)  # nobody lacks what it held
        slot.erase()
        self._is_receiving = True
        if self._broadcasts:
            self._broadcasts.start(slot.buffer, partial(self._received, slot))
        else:
            received = partial(self._received, slot)
            self._channel.receive(TRAINER, slot.buffer, Tag.VERSION, received)

    def _received(self, slot: ParameterSlot) -> None:
        assert self._shelf is not None
        if not slot.is_whole:
            if self._broadcasts is None:
                raise _trainer_lost()
            self._broadcasts.revoke()
            return
        self._is_receiving = False
        self._has_last = bool(slot.header.stop)
        if _order(slot) > self._newest_laid_out:
            self._lay_out(slot)
        self._take_up(slot)
        self._receive()

    def _lay_out(self, slot: ParameterSlot) -> None:
        """For the others of the group: the newest ones, as no ticket needs more of them."""
        assert self._shelf is not None
        self._newest_laid_out = _order(slot)
        self._shelf.put(slot)
        self._laid_out.append(slot)
        if len(self._laid_out) > self._shape.num_versions:
            self._shelf.withdraw(self._laid_out.popleft())

    def _take_up(self, slot: ParameterSlot) -> None:
        """Hand a version to this rank, unless it had it from a leader before."""
        if _order(slot) <= self._newest:
            self.recycle(slot)
            return
        self._newest = _order(slot)
        self._incoming.parameters.append(slot)

    def _release(self, place: int) -> None:
        self._channel.say(self.leader, Release(place=place), Tag.RELEASE)

    def _release_all(self) -> None:
        if self.leader != self.rank:
            self._release(ALL_PLACES)

    def _await_call(self) -> None:
        self._channel.expect(TRAINER, Call, Tag.CALL, self._heard)

    def _heard(self, call: Call | None) -> None:
        if call is None:
            raise _trainer_lost()
        self._incoming.hear(call)
        if call.word is Word.GONE and call.gone in self._group:
            self._do_without(call.gone)
        if call.word is Word.SENDS and self._broadcasts:
            # What it was receiving into is not to be used again.
            self._broadcasts, self._is_receiving, self._has_last = None, False, False
        self._has_ended |= call.word is Word.END
        self._await_call()

    def _do_without(self, rank: int) -> None:
        was_leader = rank == self.leader
        self._group.remove(rank)
        if self._shelf:
            self._lose(rank)
        elif was_leader and not self._has_ended:
            self._find_place()
            if self._has_parted:
                self._release_all()

    def _lose(self, rank: int, why: str = "") -> None:
        """A reader is gone, or dies, as what it said did not arrive whole."""
        assert self._shelf is not None
        self._shelf.lose(rank, is_dead=True)

    def _refuse(self, rank: int, slot: ParameterSlot, taken: object) -> None:
        raise AssertionError("a leader sends nobody a version as a whole")


def _order(slot: ParameterSlot) -> tuple[int, int]:
    """Of versions as they are published; the last one may be of the step of the one before."""
    return slot.header.version, slot.header.stop


def _trainer_lost() -> TrainerLostError:
    return TrainerLostError("the trainer is gone")
