"""Who reads versions where: the ranks of a host share a memory, which one of them fills.

In the memory of a host other than rank 0's each rank has an area, and writes nowhere else. So what
a leader wrote stays as it is when another one takes over, whatever becomes of the first. Knows no
MPI.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mpiadv.comm.broadcasts import Broadcasts
from mpiadv.comm.links import Allocate, LinkShape, ParameterSlot, Pin
from mpiadv.comm.messages import Bytes
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.process.words import counted

MOST_SHOWN = 8
"""Leaders that are told of by their number."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where a rank reads versions, or lays them out.

    Attributes:
        groups: of all ranks that are there, the trainer's first; the first of each leads it.
        memory: of this rank's group; None where it is alone.
        area_slots: how many versions have room in each area of that.
        broadcasts: from the trainer to the leaders; None: it sends to each by itself.
    """

    groups: Sequence[Sequence[int]]
    memory: Bytes | None = None
    area_slots: int
    broadcasts: Broadcasts | None = None

    def group_of(self, rank: int) -> list[int]:
        return next(list(group) for group in self.groups if rank in group)


def copies_told(groups: Sequence[Sequence[int]], hosts: Sequence[str]) -> str:
    """How many copies of a version there are, and who makes them; `hosts` by rank."""
    num_hosts = len({hosts[rank] for group in groups for rank in group})
    leaders = [group[0] for group in groups[1:]]
    copies = f"one copy on {'each of ' * (num_hosts > 1)}{counted(num_hosts, 'host')}"
    if len(groups) > num_hosts:
        copies = f"{len(groups)} copies on {counted(num_hosts, 'host')}, where not all share memory"
    return f"{copies}, laid out by rank 0{_and_leaders(leaders)}"


def _and_leaders(leaders: Sequence[int]) -> str:
    if not leaders:
        return ""
    shown = ", ".join(map(str, leaders[:MOST_SHOWN]))
    more = f" and {len(leaders) - MOST_SHOWN} more" if len(leaders) > MOST_SHOWN else ""
    ranks = "rank" if len(leaders) == 1 else "ranks"
    return f" and {counted(len(leaders), 'leader')} ({ranks} {shown}{more})"


class Places:
    """A rank's slots: its own ones, and those that it is told of by their place, from 1 on."""

    def __init__(
        self, home: Home, rank: int, shape: LinkShape, allocate: Allocate, pin: Pin
    ) -> None:
        self._group, self._rank = home.group_of(rank), rank
        self._area_slots = home.area_slots
        self._parameter_bytes = shape.parameter_bytes
        self._allocate = allocate
        memory = home.memory
        self._shared = None if memory is None else SharedSlots(memory, shape.parameter_bytes, pin)

    def __getitem__(self, place: int) -> ParameterSlot:
        assert self._shared is not None, "only who shares memory is told of a place"
        return self._shared[place]

    def new_slot(self, number: int) -> ParameterSlot:
        """This rank's own slot of a number, from 1 on."""
        if self._shared is None:
            return ParameterSlot(self._parameter_bytes, self._allocate)
        slot = self._shared[self._group.index(self._rank) * self._area_slots + number]
        slot.buffer.fill(0)  # touches every page now, as in memory of its own
        return slot

    def owner(self, place: int) -> int:
        """The rank that fills a place."""
        return self._group[(place - 1) // self._area_slots]
