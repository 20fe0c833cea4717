"""Requests to end, of a run or the job around it. Knows only signals: it is imported first."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""What asks a run to end; the last one that its terminal has gone away."""

_HEARD = b"mpiadv: asked to end: the ranks do so in order; a second Ctrl-C ends them at once\n"


@dataclass(kw_only=True)
class Interruption:
    """Whether Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP has asked for an end, or those of `signals`."""

    requested: bool = False
    signals: tuple[signal.Signals, ...] = SIGNALS

    def listen(self) -> None:
        """Note requests for the rest of the process; after the first one Ctrl-C ends it at once."""
        for number in _heard(self.signals):
            signal.signal(number, self._note_first)

    def close(self) -> None:
        """Hear nothing more: all is done, and whatever asks for an end from now on is too late."""
        for number in _heard(self.signals):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Within this, signals are noted, and do nothing else however often they come."""
        with _handled_by(self._note):
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _note_first(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # Who presses Ctrl-C once more does not want to wait.
        signal.signal(signal.SIGINT, signal.default_int_handler)


class SignalRelay:
    """The signals that have asked a job to end, passed on to its `mpirun` once that is there.

    It says so at once: ranks that still load torch take their time to answer.
    """

    def __init__(self) -> None:
        self.received: set[int] = set()
        self.is_urgent = False
        """Whether one was asked a second time: `mpirun` then kills the ranks."""
        self._pass_on: Callable[[int], object] = lambda number: None

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Within this, what asks for an end is passed on, and not the end of us."""
        with _handled_by(self._note):
            yield self

    def reach(self, pass_on: Callable[[int], object]) -> None:
        """From now on pass them on, also those that came while `mpirun` was started."""
        self._pass_on = pass_on
        if self.received:
            pass_on(signal.SIGUSR1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first, asks = not self.received, number not in self.received
        self.received.add(number)
        # A terminal that goes away may tell so twice: as shell, and as kernel.
        self.is_urgent |= not asks and number in (signal.SIGINT, signal.SIGTERM)
        # SIGINT and SIGTERM go on as SIGUSR1 the first time: on them `mpirun` kills.
        self._pass_on(signal.SIGUSR1 if asks or number == signal.SIGHUP else number)
        if is_first:
            with suppress(OSError):
                # The stream itself may be in the midst of a line, and a bar in a terminal is.
                os.write(2, b"\n" * os.isatty(2) + _HEARD)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _heard()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _heard(signals: Sequence[signal.Signals] = SIGNALS) -> list[signal.Signals]:
    """The signals to listen to: one that `nohup` has shut out stays out."""
    is_shut_out = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [n for n in signals if not (n == signal.SIGHUP and is_shut_out)]
