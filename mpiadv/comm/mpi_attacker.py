"""An attacker's end of the links over MPI: all is nonblocking, and moved on by `poll`."""

from collections import deque

import numpy as np

from mpiadv.comm.library import MPI
from mpiadv.comm.links import (
    Allocate,
    BatchSlot,
    Farewell,
    Incoming,
    LinkShape,
    Order,
    ParameterSlot,
)
from mpiadv.comm.messages import (
    FAREWELL_MESSAGE,
    GRANT_MESSAGE,
    RELEASE_MESSAGE,
    erase,
    is_sealed,
    seal,
)
from mpiadv.comm.requests import Requests
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.comm.watchdog import Watchdog
from mpiadv.comm.wire import (
    ALIVE,
    ALL_PLACES,
    GRANT,
    LAST_CALL,
    LEAVE,
    TAG_BATCH,
    TAG_FAREWELL,
    TAG_GRANT,
    TAG_RELEASE,
    TAG_VERSION,
    TRAINER,
    Wire,
)
from mpiadv.process.errors import DismissedError, TrainerLostError


class MpiAttackerLink:
    """An attacker's end; with `shared` it reads all versions but the last one where they lie."""

    def __init__(
        self,
        comm: MPI.Comm,
        watchdog: Watchdog,
        shape: LinkShape,
        allocate: Allocate,
        shared: SharedSlots | None = None,
    ) -> None:
        self._wire = Wire(comm)
        self._receives = Requests(comm, watchdog)
        self._sends = Requests(comm, watchdog)
        self._rank = comm.rank
        self._stopped = False
        self._incoming = Incoming()
        self._shared = shared
        num_own = 1 if shared is not None else shape.num_versions + 1
        self._free_parameters = deque(
            ParameterSlot(shape.parameter_bytes, allocate) for _ in range(num_own)
        )
        self._shape = shape
        self._allocate = allocate
        self._num_batches = 0
        self._free_batches: list[BatchSlot] = []
        self._word = np.zeros(1, GRANT_MESSAGE)
        self._awaiting_parameters = False
        self._await_parameters()
        self._await_word()

    @property
    def rank(self) -> int:
        return self._rank

    def poll(self) -> Incoming:
        if self._receives.poll() | self._sends.poll():
            raise _trainer_lost()
        incoming, self._incoming = self._incoming, Incoming()
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        if slot.place:
            self._release(slot.place)
            return
        self._free_parameters.append(slot)
        self._await_parameters()

    def free_batch_slot(self) -> BatchSlot | None:
        if not self._free_batches and self._num_batches < self._shape.outstanding:
            # One or two are enough while the trainer takes them.
            self._num_batches += 1
            return BatchSlot(self._shape.batch, self._allocate)
        return self._free_batches.pop() if self._free_batches else None

    def send(self, slot: BatchSlot) -> None:
        message = slot.seal(self._rank)
        self._sends.start(
            TRAINER,
            lambda: self._wire.comm.Issend(self._wire.spec(message), TRAINER, TAG_BATCH),
            lambda: self._free_batches.append(slot),
        )

    def bid_farewell(self, farewell: Farewell) -> None:
        if self._shared is not None:
            self._release(ALL_PLACES)
        message = np.zeros(1, FAREWELL_MESSAGE)
        for name, value in vars(farewell).items():
            message[name] = value.encode()[:64] if isinstance(value, str) else value
        seal(message)
        self._sends.start(
            TRAINER,
            lambda: self._wire.comm.Issend([message, MPI.BYTE], TRAINER, TAG_FAREWELL),
            keeps=message,
        )

    def pending(self) -> int:
        return len(self._sends)

    def free(self) -> None:
        if self.pending() or len(self._receives):
            raise RuntimeError(
                f"{self.pending()} sends and {len(self._receives)} receives are on their way"
            )
        self._wire.free()

    def _await_parameters(self) -> None:
        if self._awaiting_parameters or self._stopped or not self._free_parameters:
            return
        slot = self._free_parameters.popleft()
        slot.erase()
        self._awaiting_parameters = True
        self._receives.start(
            TRAINER,
            lambda: self._wire.comm.Irecv(self._wire.spec(slot.buffer), TRAINER, TAG_VERSION),
            lambda: self._received(slot),
        )

    def _received(self, slot: ParameterSlot) -> None:
        self._awaiting_parameters = False
        if slot.is_announced:
            assert self._shared is not None
            self._free_parameters.append(slot)
            # Its header as announced: the trainer may refill the place of a rank it has given up.
            header, slot = slot.header.copy(), self._shared[int(slot.header["place"][0])]
            slot.header = header
        elif not slot.is_whole:
            raise _trainer_lost()
        self._stopped = bool(slot.header["stop"][0])
        self._incoming.parameters.append(slot)
        self._await_parameters()

    def _release(self, place: int) -> None:
        message = np.array([(place, 0)], RELEASE_MESSAGE)
        seal(message)
        self._sends.start(
            TRAINER,
            lambda: self._wire.comm.Issend([message, MPI.BYTE], TRAINER, TAG_RELEASE),
            keeps=message,
        )

    def _await_word(self) -> None:
        erase(self._word.view(np.uint8))
        self._receives.start(
            TRAINER,
            lambda: self._wire.comm.Irecv([self._word, MPI.BYTE], TRAINER, TAG_GRANT),
            self._heard,
        )

    def _heard(self) -> None:
        if not is_sealed(self._word):
            raise _trainer_lost()
        kind, ticket, patient, _ = self._word[0].item()
        if kind == LEAVE:
            raise DismissedError("the trainer (rank 0) has given this rank up")
        if kind == GRANT:
            self._incoming.orders.append(Order(ticket=ticket, patient=bool(patient)))
        self._incoming.last_call |= kind == LAST_CALL
        self._incoming.alive |= kind == ALIVE
        if kind != LAST_CALL:
            self._await_word()


def _trainer_lost() -> TrainerLostError:
    return TrainerLostError("the trainer (rank 0) is gone")
