"""What both ends of the links over MPI have in common: tags, words, and how bytes are counted."""

from mpiadv.comm.library import MPI
from mpiadv.comm.messages import ALIGNMENT, Bytes

TRAINER = 0
TAG_GRANT, TAG_BATCH, TAG_FAREWELL, TAG_VERSION, TAG_RELEASE = 1, 2, 3, 4, 5
GRANT, LAST_CALL, ALIVE, LEAVE = 0, 1, 2, 3
ALL_PLACES = 0
"""In place of one: an attacker reads no version any more."""


class Wire:
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
