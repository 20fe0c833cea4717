"""Versions laid out for other ranks: rank 0 owns a shelf, and so does the leader of each host.

Who shares the memory is told where a version lies, reads it there and says when it reads it no
more; whoever does not is sent it as a whole. Knows no MPI.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.links import ParameterSlot
from mpiadv.comm.messages import ALL_PLACES, Release
from mpiadv.contract.outbox import Outbox, Sending

NewSlot = Callable[[int], ParameterSlot]
"""Makes the slot of a number, from 1 on."""

SendWhole = Callable[[int, ParameterSlot, Callable[[], None]], None]
"""Sends a rank the version in a slot; calls back when the slot is not needed for that any more."""


class Shelf:
    """The slots of versions, at most so many; `readers` read them in place.

    `doubt(rank, why)` hears of a reader whose words did not arrive whole.
    """

    def __init__(
        self,
        channel: Channel,
        new_slot: NewSlot,
        most_slots: int,
        readers: Iterable[int],
        doubt: Callable[[int, str], None],
    ) -> None:
        self._channel = channel
        self._new_slot = new_slot
        self._most_slots = most_slots
        self.readers = set(readers)
        self._doubt = doubt
        self._outbox = Outbox[ParameterSlot]()
        self._slots: list[ParameterSlot] = []
        self._free: list[ParameterSlot] = []
        self._given_back: list[ParameterSlot] = []
        for reader in self.readers:
            self._expect_release(reader)

    def free_slot(self) -> ParameterSlot | None:
        """A slot that nothing uses any more, None while there is none."""
        if self._free:
            return self._free.pop()
        # Ranks that do not take what they were sent, or go on reading it, keep slots.
        if len(self._slots) == self._most_slots:
            return None
        self._slots.append(self._new_slot(len(self._slots) + 1))
        return self._slots[-1]

    def owns(self, slot: ParameterSlot) -> bool:
        return any(slot is own for own in self._slots)

    def put(
        self, slot: ParameterSlot, others: Iterable[int] = (), first: Iterable[int] = ()
    ) -> None:
        """Let a version go to all readers and, as a whole, to `others`; to `first` ahead of them.

        Each gets the versions in the order in which they were put.
        """
        self._outbox.add(slot, [*self.readers, *others], first, in_place=self.readers)

    def put_again(self, slot: ParameterSlot, rank: int) -> None:
        """Let a version go, as a whole, to a rank that may lack it."""
        self._outbox.add(slot, [rank], first=())

    def withdraw(self, slot: ParameterSlot) -> None:
        """Nobody needs a version any more: who was not sent it yet does without."""
        self._outbox.withdraw(slot)
        self._free_unused()

    def give_back(self, slot: ParameterSlot) -> None:
        """This rank itself does not need the slot's version any more."""
        self._given_back.append(slot)
        self._free_unused()

    def lose(self, rank: int, *, is_dead: bool) -> None:
        """Nothing more goes to a rank; see `Outbox.cut_off`."""
        self.readers.discard(rank)
        self._outbox.cut_off(rank, is_dead=is_dead)
        self._free_unused()

    def send(self, send_whole: SendWhole) -> None:
        """Send what is due."""
        for sending, rank in self._outbox.due():
            taken = partial(self._taken, sending, rank)
            if rank in sending.in_place:
                announced = replace(sending.slot.header, place=sending.slot.place)
                self._channel.say(rank, announced, Tag.VERSION, taken)
            else:
                send_whole(rank, sending.slot, taken)

    def num_due(self, ranks: Iterable[int]) -> int:
        """How many versions these ranks have yet to be sent."""
        return self._outbox.num_due(ranks)

    def _taken(self, sending: Sending[ParameterSlot], rank: int) -> None:
        self._outbox.taken(sending, rank)
        self._free_unused()

    def _free_unused(self) -> None:
        """Slots that nobody has yet to get, or may still read, may be filled again."""
        held = [slot for slot in self._given_back if self._outbox.holds(slot)]
        self._free += [slot for slot in self._given_back if slot not in held]
        self._given_back = held

    def _expect_release(self, reader: int) -> None:
        self._channel.expect(reader, Release, Tag.RELEASE, partial(self._released, reader))

    def _released(self, reader: int, said: Release | None) -> None:
        if said is None:
            self._doubt(reader, "said of a version what did not arrive whole")
        elif said.place == ALL_PLACES:
            self._outbox.released(reader)
        else:
            for slot in self._slots:
                if slot.place == said.place:
                    self._outbox.released(reader, slot)
            self._expect_release(reader)
        self._free_unused()
