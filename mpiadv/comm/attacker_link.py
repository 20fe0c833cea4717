"""An attacker's end of the links: all is nonblocking, and moved on by `poll`. Knows no MPI."""

from collections import deque

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.links import Allocate, BatchSlot, Incoming, LinkShape, ParameterSlot
from mpiadv.comm.messages import ALL_PLACES, Call, Farewell, Release, Word
from mpiadv.comm.shared_memory import SharedSlots
from mpiadv.contract.turns import TRAINER
from mpiadv.process.errors import TrainerLostError


class AttackerLink:
    """An attacker's end; with `shared` it reads all versions but the last one where they lie."""

    def __init__(
        self,
        channel: Channel,
        shape: LinkShape,
        allocate: Allocate,
        shared: SharedSlots | None = None,
    ) -> None:
        self.rank = channel.rank
        self._channel = channel
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
        self._awaiting_parameters = False
        self._await_parameters()
        self._await_call()

    def poll(self) -> Incoming:
        """Make progress on every message; returns what has arrived. Never blocks.

        Raises:
            DismissedError: the trainer has given this rank up.
            TrainerLostError: the trainer is gone.
        """
        if TRAINER in self._channel.poll():
            raise _trainer_lost()
        incoming, self._incoming = self._incoming, Incoming()
        return incoming

    def recycle(self, slot: ParameterSlot) -> None:
        """Say that the slot's version is not needed any more."""
        if slot.place:
            self._release(slot.place)
            return
        self._free_parameters.append(slot)
        self._await_parameters()

    def free_batch_slot(self) -> BatchSlot | None:
        """A slot whose last batch has been received, None while there is none."""
        if not self._free_batches and self._num_batches < self._shape.outstanding:
            # One or two are enough while the trainer takes them.
            self._num_batches += 1
            return BatchSlot(self._shape.batch, self._allocate)
        return self._free_batches.pop() if self._free_batches else None

    def send(self, slot: BatchSlot) -> None:
        """Start sending a batch; the header alone travels where it says that there is none."""
        self._channel.send(TRAINER, slot.seal(), Tag.BATCH, lambda: self._free_batches.append(slot))

    def bid_farewell(self, farewell: Farewell) -> None:
        """Start sending the last message."""
        if self._shared is not None:
            self._release(ALL_PLACES)
        self._channel.say(TRAINER, farewell, Tag.FAREWELL)

    def pending(self) -> int:
        """How many sent messages are on their way."""
        return self._channel.num_sends(TRAINER)

    def free(self) -> None:
        """Release the link; only when nothing is pending."""
        if pending := self._channel.pending(TRAINER):
            raise RuntimeError(f"{pending} messages are on their way")
        self._channel.free()

    def _await_parameters(self) -> None:
        if self._awaiting_parameters or self._stopped or not self._free_parameters:
            return
        slot = self._free_parameters.popleft()
        slot.erase()
        self._awaiting_parameters = True
        self._channel.receive(TRAINER, slot.buffer, Tag.VERSION, lambda: self._received(slot))

    def _received(self, slot: ParameterSlot) -> None:
        self._awaiting_parameters = False
        if slot.is_announced:
            assert self._shared is not None
            self._free_parameters.append(slot)
            announced, slot = slot, self._shared[slot.header.place]
            # The trainer may refill the place of a rank it has given up.
            slot.take_header(announced)
        elif not slot.is_whole:
            raise _trainer_lost()
        self._stopped = bool(slot.header.stop)
        self._incoming.parameters.append(slot)
        self._await_parameters()

    def _release(self, place: int) -> None:
        self._channel.say(TRAINER, Release(place=place), Tag.RELEASE)

    def _await_call(self) -> None:
        self._channel.expect(TRAINER, Call, Tag.CALL, self._heard)

    def _heard(self, call: Call | None) -> None:
        if call is None:
            raise _trainer_lost()
        self._incoming.hear(call)
        if call.word is not Word.LAST_CALL:
            self._await_call()


def _trainer_lost() -> TrainerLostError:
    return TrainerLostError("the trainer (rank 0) is gone")
