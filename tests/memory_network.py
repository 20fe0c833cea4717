"""The links of a whole job in one process: messages in queues in the place of MPI.

A message is delivered when its receiver polls; a test may hold messages back through `delay`, and
leave batches unwritten through `arrives`.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.channel import Channel, Tag, do_nothing
from mpiadv.comm.links import LinkShape, most_parameter_slots, no_device, plain_memory
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
        self._taken: deque[tuple[int, Callable[[], None]]] = deque()
        """Who has taken something, and what is to be called for that at the next poll."""
        self.last_sign = defaultdict[int, float](network.clock)

    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = do_nothing
    ) -> None:
        if rank not in self._network.dead:
            sent = _Sent(message=buffer, at=self._network.clock(), taken=taken)
            self._network.queues[self.rank, rank][tag].append(sent)

    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        self._expected[rank, tag].append(_Expected(buffer=buffer, arrived=arrived))

    def poll(self) -> set[int]:
        while self._taken:
            self._taken.popleft()[1]()
        for (rank, tag), expected in list(self._expected.items()):
            queue = self._network.queues[rank, self.rank][tag]
            while queue and expected and not self._network.delay():
                self._deliver(rank, tag, queue.popleft(), expected.popleft())
        lost = self._network.dead - self._told_lost - {self.rank}
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


class MemoryNetwork:
    """The queues between one trainer (rank 0) and `num_attackers` attackers.

    `readers` of them read versions, but for the last one, where they lie.
    """

    def __init__(
        self,
        num_attackers: int,
        shape: LinkShape,
        *,
        delay: Delay = lambda: False,
        clock: Callable[[], float] = lambda: 0.0,
        survives_losses: bool = True,
        readers: Collection[int] = (),
        arrives: Arrives = lambda attacker, message: message,
    ) -> None:
        self.shape = shape
        self.arrives = arrives
        self.readers = readers
        self.delay = delay
        self.clock = clock
        self.survives_losses = survives_losses
        ranks = range(num_attackers + 1)
        self.queues: dict[tuple[int, int], dict[Tag, deque[_Sent]]] = defaultdict(
            partial(defaultdict, deque)
        )
        self.dead: set[int] = set()
        self.channels = [MemoryChannel(self, rank) for rank in ranks]
        self.roster = Roster(size=len(ranks), hosts=[f"memory-{rank}" for rank in ranks])
        num_slots = most_parameter_slots(shape, num_attackers, len(readers))
        room = SharedSlots.room_for(num_slots, shape.parameter_bytes)
        self._memory = plain_memory(room) if readers else None

    def kill(self, attacker: int) -> None:
        """The attacker dies, with all that is on its way to and from it."""
        self.dead.add(attacker)
        for pair in list(self.queues):
            if attacker in pair:
                del self.queues[pair]

    def trainer_link(self) -> TrainerLink:
        return TrainerLink(**self.trainer_parts())

    def trainer_parts(self) -> dict[str, Any]:
        """What the trainer's link is made of, by name."""
        return {
            "channel": self.channels[TRAINER],
            "roster": self.roster,
            "shape": self.shape,
            "allocate": plain_memory,
            "shared": self._slots_of(TRAINER),
            "readers": self.readers,
            "survives_losses": self.survives_losses,
        }

    def attacker_link(self, rank: int) -> AttackerLink:
        return AttackerLink(**self.attacker_parts(rank))

    def attacker_parts(self, rank: int) -> dict[str, Any]:
        """What an attacker's link is made of, by name."""
        return {
            "channel": self.channels[rank],
            "shape": self.shape,
            "allocate": plain_memory,
            "shared": self._slots_of(rank),
        }

    def _slots_of(self, rank: int) -> SharedSlots | None:
        if self._memory is None or rank not in (TRAINER, *self.readers):
            return None
        return SharedSlots(self._memory, self.shape.parameter_bytes, no_device)
