"""Messages over MPI, and how bytes are counted there."""

import time
from collections.abc import Callable

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.library import MPI
from mpiadv.comm.messages import ALIGNMENT, Bytes
from mpiadv.comm.requests import Requests
from mpiadv.comm.watchdog import Watchdog


class MpiChannel(Channel):
    """The requests of messages that are on their way.

    MPI counts elements in 31 bits: blocks carry messages of up to 128 GiB.
    """

    def __init__(self, comm: MPI.Comm, watchdog: Watchdog) -> None:
        self.rank = int(comm.rank)
        self._sends, self._receives = Requests(comm, watchdog), Requests(comm, watchdog)
        self._comm = comm
        self._block = MPI.BYTE.Create_contiguous(ALIGNMENT).Commit()
        self._began = time.perf_counter()

    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        message = buffer, buffer.size // ALIGNMENT, self._block
        # What was merely sent says nothing of the rank that is to take it.
        self._sends.start(rank, lambda: self._comm.Issend(message, rank, tag), taken, keeps=buffer)

    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        message = buffer, buffer.size // ALIGNMENT, self._block
        self._receives.start(rank, lambda: self._comm.Irecv(message, rank, tag), arrived)

    def poll(self) -> set[int]:
        return self._sends.poll() | self._receives.poll()

    def num_sends(self, rank: int) -> int:
        return self._sends.of(rank)

    def num_receives(self, rank: int) -> int:
        return self._receives.of(rank)

    def silent_seconds(self, rank: int) -> float:
        since = self._sends.oldest(rank)
        return 0.0 if since is None else time.perf_counter() - since

    def since_sign_of_life(self, rank: int) -> float:
        both = self._sends, self._receives
        last = max(requests.last_sign.get(rank, self._began) for requests in both)
        return time.perf_counter() - last

    def free(self) -> None:
        self._receives.cancel()
        self._block.Free()
