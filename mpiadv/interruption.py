"""Requests to end, of a run or the job around it. Knows only signals: it is imported first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What asks a run to end."""


class Interruption:
    """Whether Ctrl-C, SIGTERM or SIGUSR1 has asked the run to stop after the next step.

    It listens from when it is made, in place of the signals' handlers: for a program alone to make.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # Who presses Ctrl-C once more does not want to wait.
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Requests:
    """The signals that have asked a job to end, passed on to its `mpirun` once that is there."""

    def __init__(self) -> None:
        self.received: set[int] = set()
        self._pass_on: Callable[[int], object] = lambda number: None

    @contextmanager
    def heard(self) -> Iterator["Requests"]:
        """Within this, Ctrl-C, SIGTERM and SIGUSR1 are requests, and not the end of us."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def reach(self, pass_on: Callable[[int], object]) -> None:
        """From now on pass them on, also those that came while `mpirun` was started."""
        self._pass_on = pass_on
        if self.received:
            pass_on(signal.SIGUSR1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # SIGINT and SIGTERM go on as SIGUSR1 the first time: on them `mpirun` kills.
        asks = number not in self.received
        self.received.add(number)
        self._pass_on(signal.SIGUSR1 if asks else number)
