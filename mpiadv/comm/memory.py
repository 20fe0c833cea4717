"""The in-memory twin of the MPI links: all ranks in one process, messages in queues.

A message is delivered when the receiver polls; a test may hold messages back through `delay`.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from mpiadv.comm.links import (
    SPARE_BROADCASTS,
    BatchSlot,
    Delivery,
    Farewell,
    Incoming,
    LinkShape,
    Order,
    ParameterSlot,
    plain_memory,
)
from mpiadv.comm.messages import BATCH_HEADER

Delay = Callable[[], bool]
"""Asked at each poll for each message at the head of a queue: is it held back once more?"""


class MemoryNetwork:
    """The wires between one trainer (rank 0) and `num_attackers` attackers."""

    def __init__(
        self, num_attackers: int, shape: LinkShape, *, delay: Delay = lambda: False
    ) -> None:
        self.shape = shape
        self.delay = delay
        ranks = range(1, num_attackers + 1)
        self.parameters: dict[int, deque[ParameterSlot]] = {rank: deque() for rank in ranks}
        self.words: dict[int, deque[Order | str]] = {rank: deque() for rank in ranks}
        self.batches: dict[int, deque[BatchSlot]] = {rank: deque() for rank in ranks}
        self.farewells: dict[int, Farewell] = {}

    def trainer_link(self) -> "MemoryTrainerLink":
        return MemoryTrainerLink(self)

    def attacker_link(self, rank: int) -> "MemoryAttackerLink":
        return MemoryAttackerLink(self, rank)


class MemoryTrainerLink:
    """The trainer's end of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        shape = network.shape
        self._free = [
            ParameterSlot(shape.parameter_bytes, plain_memory)
            for _ in range(shape.num_versions + SPARE_BROADCASTS)
        ]
        self._recycled: list[ParameterSlot] = []
        self._held: dict[int, list[BatchSlot]] = {rank: [] for rank in network.batches}
        self._posted = {rank: 0 for rank in network.batches}
        self.largest_posted = 0

    @property
    def attackers(self) -> list[int]:
        return list(self._network.batches)

    def free_parameter_slot(self) -> ParameterSlot | None:
        in_flight = [slot for wire in self._network.parameters.values() for slot in wire]
        for slot in list(self._recycled):
            if not any(slot is other for other in in_flight):
                self._recycled.remove(slot)
                self._free.append(slot)
        return self._free.pop() if self._free else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        for wire in self._network.parameters.values():
            wire.append(slot)

    def recycle(self, slot: ParameterSlot) -> None:
        self._recycled.append(slot)

    def grant(self, attacker: int, order: Order) -> None:
        self._posted[attacker] += 1
        self.largest_posted = max(self.largest_posted, sum(self._posted.values()))
        self._network.words[attacker].append(order)

    def poll(self) -> list[Delivery]:
        arrived = []
        for attacker, wire in self._network.batches.items():
            while wire and not self._network.delay():
                slot = BatchSlot(self._network.shape.batch, plain_memory)
                sent = wire.popleft()
                size = BATCH_HEADER.itemsize if sent.header["dropped"][0] else sent.buffer.size
                slot.buffer[:size] = sent.buffer[:size]
                self._held[attacker].append(slot)
                arrived.append(Delivery(attacker=attacker, slot=slot))
        return arrived

    def release(self, slot: BatchSlot) -> None:
        for attacker, held in self._held.items():
            for index, other in enumerate(held):
                if other is slot:
                    del held[index]
                    self._posted[attacker] -= 1
                    return
        raise ValueError("released a batch slot that was not delivered")

    def call_last(self) -> None:
        for wire in self._network.words.values():
            wire.append("last call")

    def keep_alive(self) -> None:
        for wire in self._network.words.values():
            wire.append("alive")

    def farewells(self) -> dict[int, Farewell]:
        return dict(self._network.farewells)

    def host_of(self, attacker: int) -> str:
        return f"memory-{attacker}"

    def pending(self) -> int:
        return sum(map(len, self._network.parameters.values()))

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")


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
        wire = self._network.parameters[self._rank]
        while wire and self._parameter_slots and not self._network.delay():
            slot = self._parameter_slots.pop()
            np.copyto(slot.buffer, wire.popleft().buffer)
            incoming.parameters.append(slot)
        words = self._network.words[self._rank]
        while words and not self._network.delay():
            word = words.popleft()
            if isinstance(word, Order):
                incoming.orders.append(word)
            else:
                incoming.last_call |= word == "last call"
                incoming.alive |= word == "alive"
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        self._parameter_slots.append(slot)

    def free_batch_slot(self) -> BatchSlot | None:
        sent = self._network.batches[self._rank]
        return next((s for s in self._batch_slots if not any(s is o for o in sent)), None)

    def send(self, slot: BatchSlot) -> None:
        self._network.batches[self._rank].append(slot)

    def bid_farewell(self, farewell: Farewell) -> None:
        self._network.farewells[self._rank] = farewell

    def pending(self) -> int:
        return len(self._network.batches[self._rank])

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} batches are still on their way")
