"""What links carry: versions, batches, words, and the slots for them. Knows no MPI and no torch.

Slots own their buffer for good; a buffer is used again only after its message is complete.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mpiadv.comm.messages import (
    ALIGNMENT,
    BATCH_HEADER,
    PARAMETER_HEADER,
    BatchHeader,
    BatchShape,
    Bytes,
    Call,
    Fate,
    VersionHeader,
    Word,
    aligned,
    erase,
    header_of,
    is_sealed,
    is_whole,
    read,
    seal,
    seal_whole,
    write,
)
from mpiadv.contract.outbox import LONGEST_QUEUE
from mpiadv.contract.turns import Grant
from mpiadv.process.errors import DismissedError

Allocate = Callable[[int], Bytes]
"""Gives a zeroed host buffer of so many bytes, 64-byte aligned; pinned where there is a GPU."""

Pin = Callable[[Bytes], None]
"""Makes memory that ranks share as fast to copy to and from this rank's device as `Allocate`'s."""

SPARE_BROADCASTS = 4
"""How many versions may be on their way beyond those that the ring keeps."""


@dataclass(frozen=True, kw_only=True)
class LinkShape:
    """Sizes of the buffers on both ends of a link.

    `parameter_bytes` counts the flat parameters and buffers of the model, `num_versions` how many
    published versions a rank may hold, `outstanding` how many batches an attacker may owe at most.
    """

    batch: BatchShape
    parameter_bytes: int
    num_versions: int
    outstanding: int


class ParameterSlot:
    """A buffer for one version of the parameters, header included.

    `place` is its number, from 1 on, in memory that ranks share; 0: it is this rank's alone.
    """

    def __init__(self, parameter_bytes: int, allocate: Allocate, place: int = 0) -> None:
        self.place = place
        start = aligned(PARAMETER_HEADER.itemsize)
        self.buffer = allocate(parameter_slot_bytes(parameter_bytes))
        self._header = header_of(self.buffer, VersionHeader)
        self.values: Bytes = self.buffer[start : start + parameter_bytes]

    @property
    def header(self) -> VersionHeader:
        return read(self._header, VersionHeader)

    @header.setter
    def header(self, header: VersionHeader) -> None:
        write(self._header, header)

    @property
    def version(self) -> int:
        return self.header.version

    def goes_by(self, header: VersionHeader) -> None:
        """Go by this header from now on, whatever becomes of the buffer's own."""
        self._header = np.zeros(1, PARAMETER_HEADER)
        write(self._header, header)

    def erase(self) -> None:
        """Before a version is received into it."""
        erase(self.buffer)

    def seal(self) -> None:
        """Before the version that it holds is sent."""
        seal_whole(self.buffer, self._header)

    @property
    def is_whole(self) -> bool:
        """Whether it received a version as that was sealed."""
        return is_whole(self.buffer, self._header)


def parameter_slot_bytes(parameter_bytes: int) -> int:
    """The size of a `ParameterSlot`'s buffer: header, parameters, end."""
    return aligned(PARAMETER_HEADER.itemsize) + aligned(parameter_bytes) + ALIGNMENT


def most_parameter_slots(shape: LinkShape, num_attackers: int, num_readers: int) -> int:
    """How many versions a rank may have to keep for attackers that stand still.

    `num_readers` of them hold what they read in its own slots.
    """
    usual = shape.num_versions + SPARE_BROADCASTS
    queued = LONGEST_QUEUE * (num_attackers + 1)  # and those of broadcasts that were revoked
    return usual + queued + (shape.num_versions + 1) * num_readers


class BatchSlot:
    """A buffer for one batch, header included."""

    def __init__(self, shape: BatchShape, allocate: Allocate) -> None:
        self.buffer = allocate(shape.num_bytes)
        self._header = header_of(self.buffer, BatchHeader)
        self.labels = shape.labels(self.buffer)
        self.notes = shape.notes(self.buffer)
        self.images = shape.images(self.buffer)
        self.natural = shape.natural(self.buffer)

    @property
    def header(self) -> BatchHeader:
        return read(self._header, BatchHeader)

    @header.setter
    def header(self, header: BatchHeader) -> None:
        write(self._header, header)

    def erase(self) -> None:
        """Before a batch is received into it."""
        erase(self.buffer)

    def seal(self) -> Bytes:
        """Complete what it holds; returns what travels: without a batch the header alone."""
        if self.header.fate is not Fate.CRAFTED:
            seal(self._header)
            return self.buffer[: BATCH_HEADER.itemsize]
        seal_whole(self.buffer, self._header)
        return self.buffer

    def is_from(self, attacker: int) -> bool:
        """Whether it received what `attacker` sealed."""
        if not is_sealed(self._header):
            return False
        header = self.header
        whole = header.fate is not Fate.CRAFTED or is_whole(self.buffer, self._header)
        return whole and header.origin.rank == attacker


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What came from `attacker` of a ticket: a batch, or the word that there is none."""

    attacker: int
    slot: BatchSlot

    @property
    def ticket(self) -> int:
        return self.slot.header.origin.ticket


@dataclass(kw_only=True)
class Incoming:
    """What reached an attacker since it last asked."""

    parameters: list[ParameterSlot] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    last_call: bool = False
    alive: bool = False

    def __bool__(self) -> bool:
        return bool(self.parameters or self.grants or self.last_call or self.alive)

    def hear(self, call: Call) -> None:
        """Take in what the trainer says.

        Raises:
            DismissedError: it is the word to leave.
        """
        if call.word is Word.LEAVE:
            raise DismissedError("the trainer has given this rank up")
        if call.word is Word.GRANT:
            self.grants.append(call.grant)
        self.last_call |= call.word is Word.LAST_CALL
        self.alive |= call.word is Word.ALIVE


def no_device(memory: Bytes) -> None:
    """The `Pin` of a rank that computes in host memory."""


def plain_memory(num_bytes: int) -> Bytes:
    """A zeroed buffer in pageable memory, 64-byte aligned."""
    padded = np.empty(num_bytes + 64, np.uint8)
    padded.fill(0)  # touches every page now, where `zeros` would hold up the first messages
    start = -padded.ctypes.data % 64
    return padded[start : start + num_bytes]
