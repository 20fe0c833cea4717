"""The links over MPI: parameters, grants and batches, all nonblocking, moved on by `poll`."""

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np

from mpiadv.comm.library import FAULT_TOLERANT, MPI
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
from mpiadv.comm.requests import Requests
from mpiadv.comm.roster import Absence, Roster
from mpiadv.comm.watchdog import Watchdog
from mpiadv.errors import DismissedError, TrainerLostError
from mpiadv.outbox import LONGEST_QUEUE, Dispatch, Outbox

TRAINER = 0
TAG_GRANT, TAG_BATCH, TAG_FAREWELL, TAG_VERSION = 1, 2, 3, 4
GRANT, LAST_CALL, ALIVE, LEAVE = 0, 1, 2, 3


class _Wire:
    """A communicator and the datatype that counts in 64-byte blocks.

    MPI counts elements in 31 bits: blocks carry messages of up to 128 GiB.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self._block = MPI.BYTE.Create_contiguous(ALIGNMENT).Commit()

    def spec(self, buffer: Bytes) -> tuple[Bytes, int, MPI.Datatype]:
        return buffer, buffer.size // ALIGNMENT, self._block

    def free(self) -> None:
        self._block.Free()


class MpiTrainerLink:
    """The trainer's end, on rank 0; every other rank of `roster` is an attacker.

    A version is sent to each attacker by itself. `Ibcast` cannot say who needs it most: attackers
    that share a machine copy it all at once, and each has it only when all have. And one that is
    lost would be everybody's loss.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        roster: Roster,
        watchdog: Watchdog,
        shape: LinkShape,
        allocate: Allocate,
    ) -> None:
        self._wire = _Wire(comm)
        self._roster = roster
        self._shape = shape
        self._allocate = allocate
        self._sends = Requests(watchdog)
        self._receives = Requests(watchdog)
        self._outbox = Outbox[ParameterSlot]()
        self._num_slots = shape.num_versions + SPARE_BROADCASTS
        self._most_slots = self._num_slots + LONGEST_QUEUE * len(roster.attackers)
        self._free_parameters = [self._new_parameter_slot() for _ in range(self._num_slots)]
        self._recycled: list[ParameterSlot] = []
        self._free_batches: list[BatchSlot] = []
        self._arrived: list[Delivery] = []
        self._lost: list[int] = []
        self._farewells: dict[int, Farewell] = {}
        self._began = time.perf_counter()
        for attacker in self.attackers:
            self._expect_farewell(attacker)

    @property
    def attackers(self) -> list[int]:
        return self._roster.attackers

    @property
    def survives_losses(self) -> bool:
        return FAULT_TOLERANT

    def free_parameter_slot(self) -> ParameterSlot | None:
        if not self._free_parameters and self._num_slots < self._most_slots:
            # Attackers that do not take what they were sent keep buffers from being used again.
            self._num_slots += 1
            return self._new_parameter_slot()
        return self._free_parameters.pop() if self._free_parameters else None

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        self._outbox.add(slot, self.attackers, first)
        self._send_versions()

    def recycle(self, slot: ParameterSlot) -> None:
        self._outbox.withdraw(slot)
        self._recycled.append(slot)
        self._free_recycled()

    def grant(self, attacker: int, order: Order) -> None:
        if attacker not in self.attackers:
            return
        slot = self._free_batches.pop() if self._free_batches else self._new_batch_slot()
        delivery = Delivery(attacker=attacker, slot=slot)
        message = self._wire.spec(slot.buffer)
        self._receives.start(
            attacker,
            lambda: self._wire.comm.Irecv(message, attacker, TAG_BATCH),
            lambda: self._take_in(delivery),
        )
        self._say(attacker, GRANT, order.ticket, order.patient)

    def poll(self) -> list[Delivery]:
        for attacker in self._sends.poll() | self._receives.poll():
            self._lose(attacker)
        self._send_versions()
        arrived, self._arrived = self._arrived, []
        return arrived

    def release(self, slot: BatchSlot) -> None:
        self._free_batches.append(slot)

    def call_last(self) -> None:
        for attacker in self.attackers:
            self._say(attacker, LAST_CALL)

    def keep_alive(self) -> None:
        for attacker in self.attackers:
            self._say(attacker, ALIVE)

    def take_lost(self) -> list[int]:
        lost, self._lost = self._lost, []
        return lost

    def silent_seconds(self, attacker: int) -> float:
        since = self._sends.oldest(attacker)
        return 0.0 if since is None else time.perf_counter() - since

    def since_sign_of_life(self, attacker: int) -> float:
        signs = (self._sends.last_sign, self._receives.last_sign)
        last = max(sign.get(attacker, self._began) for sign in signs)
        return time.perf_counter() - last

    def dismiss(self, attacker: int) -> None:
        if self._roster.lose(attacker, Absence.DISMISSED):
            self._outbox.cut_off(attacker, is_dead=False)
            self._free_recycled()
            self._say(attacker, LEAVE)

    def farewells(self) -> dict[int, Farewell]:
        return dict(self._farewells)

    def name(self, attacker: int) -> str:
        return self._roster.name(attacker)

    def pending(self) -> int:
        there = self.attackers
        underway = sum(self._sends.of(a) + self._receives.of(a) for a in there)
        return underway + self._outbox.num_due(there)

    def free(self) -> None:
        if self.pending():
            raise RuntimeError(f"{self.pending()} messages are still on their way")
        self._wire.free()

    def _send_versions(self) -> None:
        for dispatch, attacker in self._outbox.due():
            message = self._wire.spec(dispatch.slot.buffer)
            self._sends.start(
                attacker,
                partial(self._wire.comm.Issend, message, attacker, TAG_VERSION),
                partial(self._taken, dispatch, attacker),
            )

    def _taken(self, dispatch: Dispatch[ParameterSlot], attacker: int) -> None:
        self._outbox.taken(dispatch, attacker)
        self._free_recycled()

    def _free_recycled(self) -> None:
        """Slots that nobody has yet to get may be filled again."""
        held = [slot for slot in self._recycled if self._outbox.holds(slot)]
        self._free_parameters += [slot for slot in self._recycled if slot not in held]
        self._recycled = held

    def _take_in(self, delivery: Delivery) -> None:
        if delivery.attacker in self._roster.absent:
            self.release(delivery.slot)
        else:
            self._arrived.append(delivery)

    def _lose(self, attacker: int) -> None:
        """An attacker died; one that has said farewell before owes nothing."""
        was_there = self._roster.lose(attacker, Absence.DIED)
        self._outbox.cut_off(attacker, is_dead=True)
        self._free_recycled()
        if was_there and attacker not in self._farewells:
            self._lost.append(attacker)

    def _new_parameter_slot(self) -> ParameterSlot:
        return ParameterSlot(self._shape.parameter_bytes, self._allocate)

    def _new_batch_slot(self) -> BatchSlot:
        return BatchSlot(self._shape.batch, self._allocate)

    def _say(self, attacker: int, kind: int, ticket: int = -1, patient: bool = False) -> None:
        """Say a word; that it was taken is a sign of life."""
        message = np.array([(kind, ticket, patient)], GRANT_MESSAGE)
        self._sends.start(
            attacker,
            lambda: self._wire.comm.Issend([message, MPI.BYTE], attacker, TAG_GRANT),
            # Keeps the message until it is sent.
            lambda message=message: None,  # type: ignore[misc]
        )

    def _expect_farewell(self, attacker: int) -> None:
        message = np.zeros(1, FAREWELL_MESSAGE)
        self._receives.start(
            attacker,
            lambda: self._wire.comm.Irecv([message, MPI.BYTE], attacker, TAG_FAREWELL),
            lambda: self._part_from(attacker, message),
        )

    def _part_from(self, attacker: int, message: np.ndarray) -> None:
        said = {name: message[name][0].item() for name in FAREWELL_MESSAGE.names or ()}
        said["host"] = said["host"].decode(errors="replace")
        self._farewells[attacker] = Farewell(**said)


class MpiAttackerLink:
    """An attacker's end."""

    def __init__(
        self, comm: MPI.Comm, watchdog: Watchdog, shape: LinkShape, allocate: Allocate
    ) -> None:
        self._wire = _Wire(comm)
        self._receives = Requests(watchdog)
        self._sends = Requests(watchdog)
        self._rank = comm.rank
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
        if self._receives.poll() | self._sends.poll():
            raise TrainerLostError("the trainer (rank 0) is gone")
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
        self._sends.start(
            TRAINER,
            lambda: self._wire.comm.Issend(self._wire.spec(message), TRAINER, TAG_BATCH),
            lambda: self._free_batches.append(slot),
        )

    def bid_farewell(self, farewell: Farewell) -> None:
        message = np.zeros(1, FAREWELL_MESSAGE)
        for name in FAREWELL_MESSAGE.names or ():
            value = getattr(farewell, name)
            message[name] = value.encode()[:64] if isinstance(value, str) else value
        self._sends.start(
            TRAINER,
            lambda: self._wire.comm.Issend([message, MPI.BYTE], TRAINER, TAG_FAREWELL),
            lambda message=message: None,  # type: ignore[misc]
        )

    def pending(self) -> int:
        return len(self._sends)

    def free(self) -> None:
        if self.pending() or len(self._receives):
            raise RuntimeError(
                f"{self.pending()} batches and {len(self._receives)} receives are on their way"
            )
        self._wire.free()

    def _await_parameters(self) -> None:
        if self._awaiting_parameters or self._stopped or not self._free_parameters:
            return
        slot = self._free_parameters.popleft()
        self._awaiting_parameters = True
        self._receives.start(
            TRAINER,
            lambda: self._wire.comm.Irecv(self._wire.spec(slot.buffer), TRAINER, TAG_VERSION),
            lambda: self._received(slot),
        )

    def _received(self, slot: ParameterSlot) -> None:
        self._awaiting_parameters = False
        self._stopped = bool(slot.header["stop"][0])
        self._incoming.parameters.append(slot)
        self._await_parameters()

    def _await_word(self) -> None:
        self._receives.start(
            TRAINER,
            lambda: self._wire.comm.Irecv([self._word, MPI.BYTE], TRAINER, TAG_GRANT),
            self._heard,
        )

    def _heard(self) -> None:
        kind, ticket, patient = self._word[0].item()
        if kind == LEAVE:
            raise DismissedError("the trainer (rank 0) has given this rank up")
        if kind == GRANT:
            self._incoming.orders.append(Order(ticket=ticket, patient=bool(patient)))
        self._incoming.last_call |= kind == LAST_CALL
        self._incoming.alive |= kind == ALIVE
        if kind != LAST_CALL:
            self._await_word()
