"""The trainer's end of the links in memory, which counts what goes through it."""

from collections import Counter
from collections.abc import Sequence

from memory_network import MemoryNetwork

from mpiadv.comm.channel import Tag
from mpiadv.comm.links import BatchSlot, Delivery, ParameterSlot
from mpiadv.comm.messages import Fate
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.contract.turns import TRAINER, Grant


class CountingLink(TrainerLink):
    """Counts grants, what became of them, and the buffers for batches in use.

    `sent_first` tells for each version to whom it went ahead of the others.
    """

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(**network.trainer_parts())
        self._ends = network.channels[TRAINER]
        self.num_grants = 0
        self.answers: Counter[tuple[int, Fate]] = Counter()
        self.largest_posted = self.largest_posted_of_one = 0
        self.sent_first: dict[int, list[int]] = {}
        self._held: dict[int, int] = {}

    @property
    def num_held(self) -> int:
        """Batches that were delivered and are not released yet."""
        return len(self._held)

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        self.sent_first[slot.version] = list(first)
        super().broadcast(slot, first=first)

    def grant(self, grant: Grant) -> None:
        super().grant(grant)
        self.num_grants += 1
        held = Counter(self._held.values())
        posted = [self._ends.num_expected(a, Tag.BATCH) + held[a] for a in self.attackers]
        self.largest_posted = max(self.largest_posted, sum(posted))
        self.largest_posted_of_one = max(self.largest_posted_of_one, *posted)

    def poll(self) -> list[Delivery]:
        arrived = super().poll()
        self._held |= {id(each.slot): each.attacker for each in arrived}
        self.answers.update((each.attacker, each.slot.header.fate) for each in arrived)
        return arrived

    def release(self, slot: BatchSlot) -> None:
        self._held.pop(id(slot), None)
        super().release(slot)
