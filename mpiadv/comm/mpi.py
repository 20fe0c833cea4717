"""The links over MPI: parameters, grants and batches, all nonblocking, moved on by `poll`."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mpiadv.comm.library import MPI
from mpiadv.comm.links import (
    SPARE_BROADCASTS,
    Allocate,
    BatchSlot,
    Delivery,
    Farewell,
    Incoming,
    LinkShape,
    Order,
    ParameterSlot,
)
from mpiadv.comm.messages import (
    ALIGNMENT,
    BATCH_HEADER,
    FAREWELL_MESSAGE,
    GRANT_MESSAGE,
    Bytes,
)

TRAINER = 0
TAG_GRANT, TAG_BATCH, TAG_FAREWELL, TAG_VERSION = 1, 2, 3, 4
GRANT, LAST_CALL, ALIVE = 0, 1, 2

HEAD_START_SECONDS = 0.05
"""Longest wait of the other attackers for those that get a version first: a rank that does not take
its own holds up nobody."""


class Requests:
    """Requests on their way, each with what to do when it is complete."""

    def __init__(self) -> None:
        self._requests: list[MPI.Request] = []
        self._actions: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: MPI.Request, action: Callable[[], None] = lambda: None) -> None:
        self._requests.append(request)
        self._actions.append(action)

    def poll(self) -> None:
        """Make progress; run the actions of the requests that are complete."""
        if not self._requests:
            return
        # Open MPI looks, moves messages on and does not look again: what this completes would
        # show only at the next poll, a sleep later.
        completed = MPI.Request.Testsome(self._requests) or MPI.Request.Testsome(self._requests)
        if not completed:
            return
        actions = [self._actions[index] for index in sorted(completed)]
        remaining = sorted(set(range(len(self._requests))) - set(completed))
        self._requests = [self._requests[index] for index in remaining]
        self._actions = [self._actions[index] for index in remaining]
        for action in actions:
            action()


Comms = tuple[MPI.Comm, MPI.Comm]
"""A link's own communicators, for parameters and for the rest; the link frees them."""


class _Wires:
    """The communicators of a link and the datatype that counts in 64-byte blocks.

    MPI counts elements in 31 bits: blocks carry messages of up to 128 GiB.
    """

    def __init__(self, comms: Comms) -> None:
        self.parameters, self.batches = comms
        self.block = MPI.BYTE.Create_contiguous(ALIGNMENT).Commit()

    def spec(self, buffer: Bytes) -> tuple[Bytes, int, MPI.Datatype]:
        return buffer, buffer.size // ALIGNMENT, self.block

    def free(self) -> None:
        self.block.Free()
        self.parameters.Free()
        self.batches.Free()


@dataclass(kw_only=True, eq=False)
class _Portion:
    """A version for some of the attackers; others may have to wait until these have it."""

    slot: ParameterSlot
    attackers: Sequence[int]
    goes_ahead: bool
    sent_at: float = 0.0
    taken: int = 0

    @property
    def holds_up_others(self) -> bool:
        if not self.goes_ahead or self.taken == len(self.attackers):
            return False
        return time.perf_counter() < self.sent_at + HEAD_START_SECONDS


class MpiTrainerLink:
    """The trainer's end, on rank 0; every other rank of `comms` is an attacker.

    A version is sent to each attacker by itself. `Ibcast` cannot say who needs it most: attackers
    that share a machine copy it all at once, and each has it only when all have.
    """

    def __init__(
        self, comms: Comms, shape: LinkShape, hosts: list[str], allocate: Allocate
    ) -> None:
        self._wires = _Wires(comms)
        self._requests = Requests()
        self._shape = shape
        self._hosts = hosts
        self._allocate = allocate
        self._attackers = list(range(1, comms[0].size))
        num_slots = shape.num_versions + SPARE_BROADCASTS
        self._free_parameters = [
            ParameterSlot(shape.parameter_bytes, allocate) for _ in range(num_slots)
        ]
        self._outbox: deque[_Portion] = deque()
        self._sent_last: _Portion | None = None
        self._sending: dict[int, int] = {}
        self._recycled: dict[int, ParameterSlot] = {}
        self._free_batches: list[BatchSlot] = []
        self._arrived: list[Delivery] = []
        self._farewells: dict[int, Farewell] = {}
        for attacker in self._attackers:
            self._expect_farewell(attacker)

    @property
    def attackers(self) -> list[int]:
        return list(self._attackers)

    def free_parameter_slot(self) -> ParameterSlot | None:
        return self._free_parameters.pop() if self._free_parameters else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        rest = [attacker for attacker in self._attackers if attacker not in first]
        self._outbox += [
            _Portion(slot=slot, attackers=attackers, goes_ahead=goes_ahead)
            for attackers, goes_ahead in ((first, True), (rest, False))
            if attackers
        ]
        if self._attackers:
            self._sending[id(slot)] = len(self._attackers)
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        if id(slot) in self._sending:
            self._recycled[id(slot)] = slot
        else:
            self._free_parameters.append(slot)

    def grant(self, attacker: int, order: Order) -> None:
        slot = self._free_batches.pop() if self._free_batches else self._new_batch_slot()
        request = self._wires.batches.Irecv(self._wires.spec(slot.buffer), attacker, TAG_BATCH)
        delivery = Delivery(attacker=attacker, slot=slot)
        self._requests.add(request, lambda: self._arrived.append(delivery))
        self._say(attacker, GRANT, order.ticket, order.patient)

    def poll(self) -> list[Delivery]:
        self._requests.poll()
        self._send_versions()
        arrived, self._arrived = self._arrived, []
        return arrived

    def release(self, slot: BatchSlot) -> None:
        self._free_batches.append(slot)

    def call_last(self) -> None:
        for attacker in self._attackers:
            self._say(attacker, LAST_CALL)

    def keep_alive(self) -> None:
        for attacker in self._attackers:
            self._say(attacker, ALIVE)

    def farewells(self) -> dict[int, Farewell]:
        return dict(self._farewells)

    def host_of(self, attacker: int) -> str:
        return self._hosts[attacker]

    def pending(self) -> int:
        return len(self._requests) + len(self._outbox)

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")
        self._wires.free()

    def _send_versions(self) -> None:
        """Send what may be sent, in order: so every attacker gets the versions in order."""
        while self._outbox and not (self._sent_last and self._sent_last.holds_up_others):
            portion = self._sent_last = self._outbox.popleft()
            portion.sent_at = time.perf_counter()
            message = self._wires.spec(portion.slot.buffer)
            for attacker in portion.attackers:
                request = self._wires.parameters.Issend(message, attacker, TAG_VERSION)
                self._requests.add(request, partial(self._taken, portion))

    def _taken(self, portion: _Portion) -> None:
        portion.taken += 1
        slot = portion.slot
        self._sending[id(slot)] -= 1
        if not self._sending[id(slot)]:
            del self._sending[id(slot)]
            if self._recycled.pop(id(slot), None) is not None:
                self._free_parameters.append(slot)

    def _new_batch_slot(self) -> BatchSlot:
        return BatchSlot(self._shape.batch, self._allocate)

    def _say(self, attacker: int, kind: int, ticket: int = -1, patient: bool = False) -> None:
        message = np.array([(kind, ticket, patient)], GRANT_MESSAGE)
        request = self._wires.batches.Isend([message, MPI.BYTE], attacker, TAG_GRANT)
        # The action keeps the message alive until it is sent.
        self._requests.add(request, lambda message=message: None)  # type: ignore[misc]

    def _expect_farewell(self, attacker: int) -> None:
        message = np.zeros(1, FAREWELL_MESSAGE)
        request = self._wires.batches.Irecv([message, MPI.BYTE], attacker, TAG_FAREWELL)
        self._requests.add(request, lambda: self._part_from(attacker, message))

    def _part_from(self, attacker: int, message: np.ndarray) -> None:
        said = {name: message[name][0].item() for name in FAREWELL_MESSAGE.names or ()}
        said["host"] = said["host"].decode(errors="replace")
        self._farewells[attacker] = Farewell(**said)


class MpiAttackerLink:
    """An attacker's end."""

    def __init__(self, comms: Comms, shape: LinkShape, allocate: Allocate) -> None:
        self._wires = _Wires(comms)
        self._requests = Requests()
        self._sends = Requests()
        self._rank = comms[0].rank
        self._stopped = False
        self._incoming = Incoming()
        self._free_parameters = deque(
            ParameterSlot(shape.parameter_bytes, allocate) for _ in range(shape.num_versions + 1)
        )
        self._free_batches = [BatchSlot(shape.batch, allocate) for _ in range(shape.outstanding)]
        self._word = np.zeros(1, GRANT_MESSAGE)
        self._awaiting_parameters = False
        self._await_parameters()
        self._await_word()

    @property
    def rank(self) -> int:
        return self._rank

    def poll(self) -> Incoming:
        self._requests.poll()
        self._sends.poll()
        incoming, self._incoming = self._incoming, Incoming()
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        self._free_parameters.append(slot)
        self._await_parameters()

    def free_batch_slot(self) -> BatchSlot | None:
        return self._free_batches.pop() if self._free_batches else None

    def send(self, slot: BatchSlot) -> None:
        dropped = slot.header["dropped"][0]
        message = slot.buffer[: BATCH_HEADER.itemsize] if dropped else slot.buffer
        request = self._wires.batches.Issend(self._wires.spec(message), TRAINER, TAG_BATCH)
        self._sends.add(request, lambda: self._free_batches.append(slot))

    def bid_farewell(self, farewell: Farewell) -> None:
        message = np.zeros(1, FAREWELL_MESSAGE)
        for name in FAREWELL_MESSAGE.names or ():
            value = getattr(farewell, name)
            message[name] = value.encode()[:64] if isinstance(value, str) else value
        request = self._wires.batches.Issend([message, MPI.BYTE], TRAINER, TAG_FAREWELL)
        self._sends.add(request, lambda message=message: None)  # type: ignore[misc]

    def pending(self) -> int:
        return len(self._sends)

    def free(self) -> None:
        if self.pending() or len(self._requests):
            raise RuntimeError(
                f"{self.pending()} batches and {len(self._requests)} receives are on their way"
            )
        self._wires.free()

    def _await_parameters(self) -> None:
        if self._awaiting_parameters or self._stopped or not self._free_parameters:
            return
        slot = self._free_parameters.popleft()
        self._awaiting_parameters = True
        receive = self._wires.parameters.Irecv
        request = receive(self._wires.spec(slot.buffer), TRAINER, TAG_VERSION)
        self._requests.add(request, lambda: self._received(slot))

    def _received(self, slot: ParameterSlot) -> None:
        self._awaiting_parameters = False
        self._stopped = bool(slot.header["stop"][0])
        self._incoming.parameters.append(slot)
        self._await_parameters()

    def _await_word(self) -> None:
        request = self._wires.batches.Irecv([self._word, MPI.BYTE], TRAINER, TAG_GRANT)
        self._requests.add(request, self._heard)

    def _heard(self) -> None:
        kind, ticket, patient = self._word[0].item()
        if kind == GRANT:
            self._incoming.orders.append(Order(ticket=ticket, patient=bool(patient)))
        self._incoming.last_call |= kind == LAST_CALL
        self._incoming.alive |= kind == ALIVE
        if kind != LAST_CALL:
            self._await_word()
