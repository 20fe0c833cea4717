"""What both ends of the links over MPI have in common: tags, and how bytes are counted."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from mpiadv.comm.library import MPI
from mpiadv.comm.messages import ALIGNMENT, Bytes, erased, is_sealed, read, sealed
from mpiadv.comm.requests import Requests
from mpiadv.comm.watchdog import Watchdog
from mpiadv.contract.columns import SaidT


class Tag(IntEnum):
    """What a message is, as MPI matches it."""

    CALL = 1
    BATCH = 2
    FAREWELL = 3
    VERSION = 4
    RELEASE = 5
    FRAME = 11
    TEXT = 12


class Channel:
    """Messages of whole 64-byte blocks, and the requests of those that are on their way.

    MPI counts elements in 31 bits: blocks carry messages of up to 128 GiB.
    """

    def __init__(self, comm: MPI.Comm, watchdog: Watchdog) -> None:
        self.sends, self.receives = Requests(comm, watchdog), Requests(comm, watchdog)
        self._comm = comm
        self._block = MPI.BYTE.Create_contiguous(ALIGNMENT).Commit()

    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        """Send what is in a buffer; calls `taken` when the other rank has begun to receive it."""
        message = buffer, buffer.size // ALIGNMENT, self._block
        self.sends.start(rank, lambda: self._comm.Issend(message, rank, tag), taken, keeps=buffer)

    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        message = buffer, buffer.size // ALIGNMENT, self._block
        self.receives.start(rank, lambda: self._comm.Irecv(message, rank, tag), arrived)

    def say(
        self, rank: int, said: object, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        """Send a message that is nothing but a header."""
        self.send(rank, sealed(said).view(np.uint8), tag, taken)

    def expect(
        self, rank: int, said: type[SaidT], tag: Tag, heard: Callable[[SaidT | None], None]
    ) -> None:
        """Receive one that says an object of `said`; `heard` gets None if it came not whole."""
        header = erased(said)

        def arrived() -> None:
            heard(read(header, said) if is_sealed(header) else None)

        self.receive(rank, header.view(np.uint8), tag, arrived)

    def free(self) -> None:
        self._block.Free()
