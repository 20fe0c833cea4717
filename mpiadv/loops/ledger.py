"""Where the trainer's time goes from one training step to the next. Knows no MPI and no torch."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpiadv.comm.messages import BatchHeader
from mpiadv.contract.accounts import Outcome, StepRecord, TicketRecord
from mpiadv.loops.colleagues import Summed


@dataclass(kw_only=True)
class _Spent:
    """Seconds since the last training step."""

    craft: float = 0.0
    wait: float = 0.0
    publish: float = 0.0
    train: float = 0.0
    exchange: float = 0.0


class Ledger:
    """Adds up the trainer's seconds; a record of a step takes them and begins anew."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.spent = _Spent()
        self._idle_since: float | None = None
        self._is_exchanging = False
        self._began = clock()

    def begin(self) -> None:
        """The next step begins now."""
        self._began = self._clock()

    def leave_out(self, seconds: float) -> None:
        """Something took so long that is no part of any step."""
        self._began += seconds

    def idle(self, *, exchanging: bool) -> None:
        """There is nothing to do, be it still or from now on, but to wait; for other trainers?"""
        if self._idle_since is None:
            self._idle_since, self._is_exchanging = self._clock(), exchanging

    def end_idling(self) -> None:
        """Book the wait as a whole: moving messages on in vain is waiting too."""
        if self._idle_since is None:
            return
        seconds, self._idle_since = self._clock() - self._idle_since, None
        if self._is_exchanging:
            self.spent.exchange += seconds
        else:
            self.spent.wait += seconds

    def record(self, step: int, header: BatchHeader, outcome: Outcome, told: Summed) -> StepRecord:
        """That of a step which is complete; `header` is what is told of its tickets as of one."""
        spent, self.spent = self.spent, _Spent()
        return StepRecord(
            step=step,
            origin=header.origin,
            outcome=outcome,
            report=header.report,
            seconds=header.seconds,
            own_craft_seconds=spent.craft,
            wait_seconds=spent.wait,
            train_seconds=spent.train,
            publish_seconds=spent.publish,
            exchange_seconds=spent.exchange,
            wall_clock=time.time(),
            total_seconds=self._clock() - self._began,
            tickets=tuple(
                TicketRecord(step=step, origin=h.origin, report=h.report, seconds=h.seconds)
                for h in told.headers
            ),
            others=tuple(told.others),
        )
