"""Requests on their way, each with the rank at its other end, which may be lost."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpiadv.comm.library import MPI
from mpiadv.comm.watchdog import Watchdog

_LOSSES = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)


@dataclass(frozen=True, kw_only=True)
class _Underway:
    peer: int
    began: float
    action: Callable[[], None]
    keeps: object


class Requests:
    """Requests on their way, each with what to do when it is complete.

    A request to or from a rank that is lost fails: it is forgotten, and `poll` names the rank.
    """

    def __init__(self, comm: MPI.Comm, watchdog: Watchdog) -> None:
        self._comm = comm
        self._watchdog = watchdog
        self._requests: list[MPI.Request] = []
        self._underway: list[_Underway] = []
        self._statuses: list[MPI.Status] = []
        self._lost: set[int] = set()
        self.last_sign: dict[int, float] = {}
        """When a request of each rank was complete last."""

    def __len__(self) -> int:
        return len(self._requests)

    def start(
        self,
        peer: int,
        begin: Callable[[], MPI.Request],
        action: Callable[[], None] = lambda: None,
        *,
        keeps: object = None,
    ) -> None:
        """Begin a request; when it is complete, call `action` and let go of what it `keeps`."""
        try:
            request = begin()
        except MPI.Exception as error:
            require_loss(error.Get_error_code())
            self._lost.add(peer)
            return
        self._requests.append(request)
        began = time.perf_counter()
        self._underway.append(_Underway(peer=peer, began=began, action=action, keeps=keeps))
        self._statuses.append(MPI.Status())

    def poll(self) -> set[int]:
        """Make progress, run the actions of what is complete; the ranks that turned out lost."""
        # Open MPI looks, moves messages on and does not look again: what this completes would
        # show only at the next poll, a sleep later.
        with self._watchdog.watching():
            self._complete_some() or self._complete_some()
        lost, self._lost = self._lost, set()
        return lost

    def cancel(self) -> None:
        """Take back receives; what was sent cannot be."""
        for request in self._requests:
            try:
                request.Cancel()
                request.Wait()
            except MPI.Exception as error:
                require_loss(error.Get_error_code())
        self._keep([])

    def oldest(self, peer: int) -> float | None:
        """When the oldest request of a rank began, None where there is none."""
        return min((item.began for item in self._underway if item.peer == peer), default=None)

    def of(self, peer: int) -> int:
        """How many requests of a rank are on their way."""
        return sum(item.peer == peer for item in self._underway)

    @property
    def peers(self) -> set[int]:
        return {item.peer for item in self._underway}

    def _complete_some(self) -> bool:
        if not self._requests:
            return False
        completed, failed = self._test()
        if not completed:
            return False
        finished = [self._underway[index] for index in completed]
        self._keep(sorted(set(range(len(self._requests))) - set(completed)))
        now = time.perf_counter()
        for index, item in zip(completed, finished, strict=True):
            if index in failed:
                self._lost.add(item.peer)
            else:
                self.last_sign[item.peer] = now
                item.action()
        return True

    def _test(self) -> tuple[list[int], set[int]]:
        """The requests that are complete, and those of them that failed."""
        try:
            return sorted(MPI.Request.Testsome(self._requests, self._statuses) or []), set()
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_IN_STATUS:
                raise
        # The exception hides which requests are complete; but those are null by now. Which of them
        # failed their statuses do not tell: Open MPI fills in those of complete requests, and then
        # frees all that have failed so far, such as a long receive that was under way.
        completed = [i for i, r in enumerate(self._requests) if r == MPI.REQUEST_NULL]
        for status in self._statuses:
            if status.Get_error() != MPI.SUCCESS:
                require_loss(status.Get_error())
        lost = self._lost_ranks()
        return completed, {i for i in completed if self._underway[i].peer in lost}

    def _lost_ranks(self) -> set[int]:
        lost, everybody = self._comm.Get_failed(), self._comm.Get_group()
        ranks = set(MPI.Group.Translate_ranks(lost, None, everybody)) if lost.size else set()
        lost.Free()
        everybody.Free()
        return ranks

    def _keep(self, remaining: list[int]) -> None:
        self._requests = [self._requests[index] for index in remaining]
        self._underway = [self._underway[index] for index in remaining]
        self._statuses = self._statuses[: len(remaining)]


def require_loss(code: int) -> None:
    """Raise any error that does not come of a lost rank."""
    if MPI.Get_error_class(code) not in _LOSSES:
        raise MPI.Exception(code)
