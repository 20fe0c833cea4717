"""Versions by MPI's own broadcast, from the trainer to a leader on each of the other hosts."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mpiadv.comm.library import FAULT_TOLERANT, MPI
from mpiadv.comm.messages import ALIGNMENT, Bytes
from mpiadv.comm.requests import require_loss
from mpiadv.comm.watchdog import Watchdog
from mpiadv.contract.turns import TRAINER

LONGEST_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class _Underway:
    request: MPI.Request
    buffer: Bytes
    complete: Callable[[], None]


class MpiBroadcasts:
    """See `Broadcasts`. `comm` has the trainer as its first rank, and all leaders."""

    def __init__(self, comm: MPI.Comm, watchdog: Watchdog) -> None:
        self._comm = comm
        self._watchdog = watchdog
        self._block = MPI.BYTE.Create_contiguous(ALIGNMENT).Commit()
        self._underway: deque[_Underway] = deque()
        self._abandoned: list[_Underway] = []
        """MPI may still read or write their buffers."""
        self._has_failed = False
        self._looked = 0.0
        self.waited_seconds = 0.0

    @property
    def num_underway(self) -> int:
        return len(self._underway)

    def start(self, buffer: Bytes, complete: Callable[[], None]) -> None:
        message = [buffer, buffer.size // ALIGNMENT, self._block]
        try:
            request = self._comm.Ibcast(message, root=TRAINER)
        except MPI.Exception as error:
            require_loss(error.Get_error_code())
            self.revoke()
            return
        self._underway.append(_Underway(request=request, buffer=buffer, complete=complete))

    def poll(self) -> bool:
        now = time.perf_counter()
        # Time in which nobody looked may be time in which the whole job was stopped.
        self.waited_seconds += min(now - self._looked, LONGEST_LOOK_SECONDS)
        self._looked = now
        while self._underway and self._is_complete(self._underway[0].request):
            self._underway.popleft().complete()
            self.waited_seconds = 0.0
        if not self._underway:
            self.waited_seconds = 0.0
        return not self._has_failed

    def _is_complete(self, request: MPI.Request) -> bool:
        try:
            with self._watchdog.watching():
                return bool(request.Test())
        except MPI.Exception as error:
            require_loss(error.Get_error_code())
            self.revoke()
            return False

    def revoke(self) -> None:
        if self._has_failed:
            return
        self._has_failed = True
        if FAULT_TOLERANT:
            self._comm.Revoke()
        self._abandoned += self._underway
        self._underway.clear()

    def free(self) -> None:
        self._block.Free()
        if not self._has_failed and not FAULT_TOLERANT:  # a rank that died would not let it go
            self._comm.Free()
