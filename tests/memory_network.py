"""The links of a whole job in one process: messages in queues in the place of MPI.

A message is delivered when its receiver polls; a test may hold messages back through `delay`, and
leave batches unwritten through `arrives`.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.homes import Home
from mpiadv.comm.links import LinkShape, most_parameter_slots, plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.comm.roster import Roster
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.contract.turns import TRAINER

Delay = Callable[[], bool]
"""Asked at each poll for each message at the head of a queue: is it held back once more?"""

Arrives = Callable[[int, Bytes], Bytes]
"""Of what an attacker sent, that which is written, from the start of what is to receive it."""


@dataclass(kw_only=True, eq=False)
class _Sent:
    """A message on its way."""

    message: Bytes
    at: float
    taken: Callable[[], None]


@dataclass(kw_only=True, eq=False)
class _Expected:
    """What is to receive a message."""

    buffer: Bytes
    arrived: Callable[[], None]


class MemoryChannel(Channel):
    """One rank's end of all queues of a `MemoryNetwork`."""

    def __init__(self, network: "MemoryNetwork", rank: int) -> None:
        self.rank = rank
        self._network = network
        self._expected: dict[tuple[int, Tag], deque[_Expected]] = defaultdict(deque)
        self._told_lost: set[int] = set()
        self._sent_in_vain: set[int] = set()
        self._taken: deque[tuple[int, Callable[[], None]]] = deque()
        """Who has taken something, and what is to be called for that at the next poll."""
        self.last_sign = defaultdict[int, float](network.clock)

    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        if rank in self._network.dead:
            self._sent_in_vain.add(rank)
        else:
            sent = _Sent(message=buffer, at=self._network.clock(), taken=taken)
            self._network.queues[self.rank, rank][tag].append(sent)

    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        self._expected[rank, tag].append(_Expected(buffer=buffer, arrived=arrived))

    def poll(self) -> set[int]:
        while self._taken:
            self._taken.popleft()[1]()
        for (rank, tag), expected in [item for item in self._expected.items() if item[1]]:
            queue = self._network.queues[rank, self.rank][tag]
            while queue and expected and not self._network.delay():
                self._deliver(rank, tag, queue.popleft(), expected.popleft())
        return self._find_lost() if self._network.dead else set()

    def _find_lost(self) -> set[int]:
        asked = {rank for (rank, _), each in self._expected.items() if each} | self._sent_in_vain
        lost = self._network.dead & asked - self._told_lost
        self._told_lost |= lost
        for rank, tag in list(self._expected):
            if rank in lost:
                del self._expected[rank, tag]
        return lost

    def num_sends(self, rank: int) -> int:
        underway = sum(map(len, self._network.queues[self.rank, rank].values()))
        return underway + sum(other == rank for other, _ in self._taken)

    def num_expected(self, rank: int, tag: Tag) -> int:
        """How many messages of a tag are expected of a rank."""
        return len(self._expected[rank, tag])

    def num_receives(self, rank: int) -> int:
        return sum(len(each) for (other, _), each in self._expected.items() if other == rank)

    def silent_seconds(self, rank: int) -> float:
        queues = self._network.queues[self.rank, rank].values()
        since = min((queue[0].at for queue in queues if queue), default=None)
        return 0.0 if since is None else self._network.clock() - since

    def since_sign_of_life(self, rank: int) -> float:
        return self._network.clock() - self.last_sign[rank]

    def free(self) -> None:
        """It holds nothing."""

    def _deliver(self, rank: int, tag: Tag, sent: _Sent, expected: _Expected) -> None:
        message = sent.message
        if tag is Tag.BATCH:
            message = self._network.arrives(rank, message)
        expected.buffer[: message.size] = message
        sender = self._network.channels[rank]
        sender._taken.append((self.rank, sent.taken))
        self.last_sign[rank] = sender.last_sign[self.rank] = self._network.clock()
        expected.arrived()


@dataclass(kw_only=True, eq=False)
class _Broadcast:
    """One of the trainer's: what it sends, and to how many of the leaders it has come so far."""

    message: Bytes
    complete: Callable[[], None]
    at: float
    num_reached: int = 0


class MemoryBroadcasts:
    """One rank's end of the broadcasts of a network: each leader has them of the one before it.

    One that is dead, or asleep, holds up all behind it. Those before it may have what these lack,
    and whoever is told late that they were revoked goes on with them until then.
    """

    def __init__(self, network: "MemoryNetwork", rank: int) -> None:
        self._network = network
        self._place = network.leaders.index(rank) if rank != TRAINER else -1
        self._underway: deque[tuple[Bytes, Callable[[], None]]] = deque()
        self._num_done = 0
        self._has_failed = False

    @property
    def num_underway(self) -> int:
        return len(self._underway)

    @property
    def waited_seconds(self) -> float:
        sent = self._network.broadcasts[self._num_done :]
        return self._network.clock() - sent[0].at if sent and self._place < 0 else 0.0

    def start(self, buffer: Bytes, complete: Callable[[], None]) -> None:
        if self._place < 0:
            sent = _Broadcast(message=buffer, complete=complete, at=self._network.clock())
            self._network.broadcasts.append(sent)
        self._underway.append((buffer, complete))

    def poll(self) -> bool:
        sent = self._network.broadcasts
        while self._underway and len(sent) > self._num_done and not self._is_held_up():
            self._take(sent[self._num_done])
        is_told = self._network.are_revoked and not self._network.delay()
        self._has_failed |= is_told
        return not self._has_failed

    def revoke(self) -> None:
        self._has_failed = self._network.are_revoked = True

    def free(self) -> None:
        """It holds nothing."""

    def _is_held_up(self) -> bool:
        if self._has_failed or self._network.delay():
            return True
        reached = self._network.broadcasts[self._num_done].num_reached
        # The trainer has done its part once the first leader has it, and may be told so later.
        return reached < (1 if self._place < 0 else self._place)

    def _take(self, sent: _Broadcast) -> None:
        buffer, complete = self._underway.popleft()
        self._num_done += 1
        if self._place >= 0:
            # The first is sent what lies there now, the others what that one has got.
            buffer[:] = sent.message
            sent.message = buffer.copy()
            sent.num_reached = self._place + 1
        complete()


class MemoryNetwork:
    """The queues between one trainer (rank 0) and `num_attackers` attackers.

    `hosts` says which ranks share a memory, the trainer's first; each of the others is one by
    itself. With `by_broadcast` versions go to the leaders of the others that way.
    """

    def __init__(
        self,
        num_attackers: int,
        shape: LinkShape,
        *,
        delay: Delay = lambda: False,
        clock: Callable[[], float] = lambda: 0.0,
        survives_losses: bool = True,
        hosts: Sequence[Sequence[int]] = ((0,),),
        by_broadcast: bool = False,
        deadline_seconds: float = 1e9,
        arrives: Arrives = lambda attacker, message: message,
    ) -> None:
        self.shape = shape
        self.arrives = arrives
        self.delay = delay
        self.clock = clock
        self.survives_losses = survives_losses
        self.deadline_seconds = deadline_seconds
        ranks = range(num_attackers + 1)
        known = {rank for host in hosts for rank in host}
        self.groups = [*map(list, hosts), *([rank] for rank in ranks if rank not in known)]
        self.leaders = [group[0] for group in self.groups[1:]]
        self.by_broadcast = by_broadcast and bool(self.leaders)
        self.broadcasts: list[_Broadcast] = []
        self.are_revoked = False
        self.queues: dict[tuple[int, int], dict[Tag, deque[_Sent]]] = defaultdict(
            partial(defaultdict, deque)
        )
        self.dead: set[int] = set()
        self.channels = [MemoryChannel(self, rank) for rank in ranks]
        self.roster = Roster(size=len(ranks), hosts=[f"memory-{rank}" for rank in ranks])
        self._area_slots = most_parameter_slots(shape, num_attackers, num_attackers)
        room = SharedSlots.room_for(self._area_slots, shape.parameter_bytes)
        self._memories = [
            np.zeros(room * len(group), np.uint8) if len(group) > 1 else None
            for group in self.groups
        ]

    def kill(self, attacker: int) -> None:
        """The attacker dies, with all that is on its way to and from it."""
        self.dead.add(attacker)
        for sender, receiver in [pair for pair in self.queues if attacker in pair]:
            if any(self.queues.pop((sender, receiver)).values()):
                self.channels[sender]._sent_in_vain.add(receiver)

    def trainer_link(self) -> TrainerLink:
        return TrainerLink(**self.trainer_parts())

    def trainer_parts(self) -> dict[str, Any]:
        """What the trainer's link is made of, by name."""
        return {
            **self.attacker_parts(TRAINER),
            "roster": self.roster,
            "survives_losses": self.survives_losses,
            "deadline_seconds": lambda: self.deadline_seconds,
        }

    def attacker_link(self, rank: int) -> AttackerLink:
        return AttackerLink(**self.attacker_parts(rank))

    def attacker_parts(self, rank: int) -> dict[str, Any]:
        """What an attacker's link is made of, by name."""
        return {
            "channel": self.channels[rank],
            "shape": self.shape,
            "allocate": plain_memory,
            "home": self._home_of(rank),
        }

    def _home_of(self, rank: int) -> Home:
        memory = next(
            m for m, group in zip(self._memories, self.groups, strict=True) if rank in group
        )
        is_end = self.by_broadcast and rank in (TRAINER, *self.leaders)
        return Home(
            groups=self.groups,
            memory=memory,
            area_slots=self._area_slots,
            broadcasts=MemoryBroadcasts(self, rank) if is_end else None,
        )
