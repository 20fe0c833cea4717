"""What both ends of the links over MPI have in common: tags, and how bytes are counted."""

from enum import IntEnum

from mpiadv.comm.library import MPI
from mpiadv.comm.messages import ALIGNMENT, Bytes


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
