"""The in-memory twin of the MPI links: all ranks in one process, messages in queues.

A message is delivered when the receiver polls; a test may hold messages back through `delay`, and
leave batches unwritten through `arrives`.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from mpiadv.comm.links import (
    BatchSlot,
    Delivery,
    Incoming,
    LinkShape,
    ParameterSlot,
    most_parameter_slots,
    plain_memory,
)
from mpiadv.comm.messages import Bytes, Call, Farewell, Word
from mpiadv.comm.roster import Absence, Roster
from mpiadv.contract.outbox import Outbox, Sending
from mpiadv.contract.turns import Grant

Delay = Callable[[], bool]
"""Asked at each poll for each message at the head of a queue: is it held back once more?"""

Arrives = Callable[[int, Bytes], Bytes]
"""Of what an attacker sent, that which is written, from the start of what is to receive it."""


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
        self.readers = frozenset(readers)
        self.releases: deque[tuple[int, ParameterSlot]] = deque()
        self.delay = delay
        self.clock = clock
        self.survives_losses = survives_losses
        ranks = range(1, num_attackers + 1)
        self.outbox = Outbox[ParameterSlot]()
        self.parameters: dict[int, deque[Sending[ParameterSlot]]] = {
            rank: deque() for rank in ranks
        }
        self.words: dict[int, deque[Call]] = {rank: deque() for rank in ranks}
        self.batches: dict[int, deque[tuple[BatchSlot, Bytes]]] = {rank: deque() for rank in ranks}
        self.farewells: dict[int, Farewell] = {}
        self.roster = Roster(size=num_attackers + 1, hosts=[f"memory-{r}" for r in (0, *ranks)])
        self.lost: list[int] = []
        self.last_sign = {rank: clock() for rank in ranks}
        self.had_all = {rank: clock() for rank in ranks}
        """When an attacker took something last, or there was nothing that it had to take."""

    def kill(self, attacker: int) -> None:
        """The attacker dies, with all that is on its way to and from it."""
        if self.roster.lose(attacker, Absence.DIED):
            self.lost.append(attacker)
        for queue in (self.parameters[attacker], self.words[attacker], self.batches[attacker]):
            queue.clear()
        self.outbox.cut_off(attacker, is_dead=True)

    def has_to_take(self, attacker: int) -> bool:
        """Whether something is on its way to an attacker."""
        return bool(self.parameters[attacker] or self.words[attacker])

    def trainer_link(self) -> "MemoryTrainerLink":
        return MemoryTrainerLink(self)

    def attacker_link(self, rank: int) -> "MemoryAttackerLink":
        return MemoryAttackerLink(self, rank)


class MemoryTrainerLink:
    """The trainer's end of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._free: list[ParameterSlot] = []
        self.num_parameter_slots = 0
        self._recycled: list[ParameterSlot] = []
        self._held: dict[int, list[BatchSlot]] = {rank: [] for rank in network.batches}
        self._receives: dict[int, deque[BatchSlot]] = {rank: deque() for rank in network.batches}
        self._free_batches: list[BatchSlot] = []
        self._posted = {rank: 0 for rank in network.batches}
        self.largest_posted = 0

    @property
    def attackers(self) -> list[int]:
        return self._network.roster.attackers

    @property
    def survives_losses(self) -> bool:
        return self._network.survives_losses

    @property
    def num_held(self) -> int:
        """Batches that were delivered and are not released yet."""
        return sum(map(len, self._held.values()))

    def free_parameter_slot(self) -> ParameterSlot | None:
        shape, outbox = self._network.shape, self._network.outbox
        held = [slot for slot in self._recycled if outbox.holds(slot)]
        self._free += [slot for slot in self._recycled if slot not in held]
        self._recycled = held
        most = most_parameter_slots(shape, len(self._posted), len(self._network.readers))
        if not self._free and self.num_parameter_slots < most:
            self.num_parameter_slots += 1
            place = self.num_parameter_slots if self._network.readers else 0
            self._free.append(ParameterSlot(shape.parameter_bytes, plain_memory, place))
        return self._free.pop() if self._free else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        slot.seal()
        in_place = () if slot.header.stop else self._network.readers
        self._network.outbox.add(slot, self.attackers, first, in_place)
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        self._network.outbox.withdraw(slot)
        self._recycled.append(slot)

    def grant(self, grant: Grant) -> None:
        attacker = grant.attacker
        if attacker not in self.attackers:
            return
        slot = self._free_batches.pop() if self._free_batches else self._new_batch_slot()
        slot.erase()
        self._receives[attacker].append(slot)
        self._posted[attacker] += 1
        self.largest_posted = max(self.largest_posted, sum(self._posted.values()))
        self._network.words[attacker].append(Call(word=Word.GRANT, grant=grant))

    def poll(self) -> list[Delivery]:
        releases = self._network.releases
        while releases and not self._network.delay():
            self._network.outbox.released(*releases.popleft())
        self._send_versions()
        arrived, now = [], self._network.clock()
        for attacker, queue in self._network.batches.items():
            if not self._network.has_to_take(attacker):
                self._network.had_all[attacker] = now
            while queue and not self._network.delay():
                slot = self._receives[attacker].popleft()
                message = self._network.arrives(attacker, queue.popleft()[1])
                slot.buffer[: message.size] = message
                self._held[attacker].append(slot)
                if not self._network.roster.believes(attacker):
                    self.release(slot)
                    continue
                self._network.last_sign[attacker] = now
                if slot.is_from(attacker):
                    arrived.append(Delivery(attacker=attacker, slot=slot))
                else:
                    self.doubt(attacker, "sent a batch that did not arrive whole")
                    self.release(slot)
        return arrived

    def release(self, slot: BatchSlot) -> None:
        for attacker, held in self._held.items():
            for index, other in enumerate(held):
                if other is slot:
                    del held[index]
                    self._free_batches.append(slot)
                    self._posted[attacker] -= 1
                    return
        raise ValueError("released a batch slot that was not delivered")

    def call_last(self) -> None:
        for attacker in self.attackers:
            self._network.words[attacker].append(Call(word=Word.LAST_CALL))

    def keep_alive(self) -> None:
        for attacker in self.attackers:
            self._network.words[attacker].append(Call(word=Word.ALIVE))

    def take_lost(self) -> list[int]:
        lost, self._network.lost = self._network.lost, []
        return lost

    def doubt(self, attacker: int, why: str) -> None:
        self._network.roster.doubted[attacker] = why

    def take_doubted(self) -> dict[int, str]:
        return self._network.roster.take_doubted()

    def silent_seconds(self, attacker: int) -> float:
        if not self._network.has_to_take(attacker):
            return 0.0
        return self._network.clock() - self._network.had_all[attacker]

    def since_sign_of_life(self, attacker: int) -> float:
        return self._network.clock() - self._network.last_sign[attacker]

    def dismiss(self, attacker: int) -> None:
        self._network.roster.lose(attacker, Absence.DISMISSED)
        self._network.outbox.cut_off(attacker, is_dead=False)
        self._network.words[attacker].append(Call(word=Word.LEAVE))

    def farewells(self) -> dict[int, Farewell]:
        return dict(self._network.farewells)

    def name(self, attacker: int) -> str:
        return self._network.roster.name(attacker)

    def pending(self) -> int:
        queues = (self._network.parameters[attacker] for attacker in self.attackers)
        return sum(map(len, queues)) + self._network.outbox.num_due(self.attackers)

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")

    def _new_batch_slot(self) -> BatchSlot:
        return BatchSlot(self._network.shape.batch, plain_memory)

    def _send_versions(self) -> None:
        for sending, attacker in self._network.outbox.due():
            self._network.parameters[attacker].append(sending)


class MemoryAttackerLink:
    """An attacker's end of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, rank: int) -> None:
        self._network = network
        self._rank = rank
        shape = network.shape
        self._parameter_slots = [
            ParameterSlot(shape.parameter_bytes, plain_memory)
            for _ in range(shape.num_versions + 1)
        ]
        self._batch_slots = [BatchSlot(shape.batch, plain_memory) for _ in range(shape.outstanding)]

    @property
    def rank(self) -> int:
        return self._rank

    def poll(self) -> Incoming:
        incoming = Incoming()
        queue = self._network.parameters[self._rank]
        while queue and self._parameter_slots and not self._network.delay():
            sending = queue.popleft()
            incoming.parameters.append(self._taken_up(sending))
            self._network.outbox.taken(sending, self._rank)
        words = self._network.words[self._rank]
        while words and not self._network.delay():
            incoming.hear(words.popleft())
        if incoming:
            now = self._network.clock()
            self._network.last_sign[self._rank] = self._network.had_all[self._rank] = now
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        if slot.place:
            self._network.releases.append((self._rank, slot))
        else:
            self._parameter_slots.append(slot)

    def free_batch_slot(self) -> BatchSlot | None:
        sent = self._network.batches[self._rank]
        return next((s for s in self._batch_slots if not any(s is o for o, _ in sent)), None)

    def send(self, slot: BatchSlot) -> None:
        self._network.batches[self._rank].append((slot, slot.seal()))

    def bid_farewell(self, farewell: Farewell) -> None:
        self._network.outbox.released(self._rank)
        self._network.farewells[self._rank] = farewell

    def pending(self) -> int:
        return len(self._network.batches[self._rank])

    def _taken_up(self, sending: Sending[ParameterSlot]) -> ParameterSlot:
        if self._rank in sending.in_place:
            return sending.slot
        slot = self._parameter_slots.pop()
        np.copyto(slot.buffer, sending.slot.buffer)
        return slot

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} batches are still on their way")
