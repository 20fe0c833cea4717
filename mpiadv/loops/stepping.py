"""Training steps: the gradients of a step's tickets, their sum over all trainers, the update.

Knows no MPI and no torch, and neither where batches come from nor where versions go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Generic

from mpiadv.comm.messages import BatchHeader
from mpiadv.comm.notes import Halt
from mpiadv.comm.waiting import Wait
from mpiadv.contract.accounts import Outcome, StepRecord
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.loops.bench import VersionRing, settle
from mpiadv.loops.colleagues import Colleagues, Fault, Mine, Summed, halt_of
from mpiadv.loops.ledger import Ledger
from mpiadv.loops.step_account import header_of, outcome_of, require_finite
from mpiadv.methods.attack_schedules import AttackSchedule, TrainedStep
from mpiadv.work.protocols import BatchT, Learner


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A training step that is done; `header` is what is told of its tickets as of one."""

    step: int
    header: BatchHeader
    outcome: Outcome
    told: Summed


class Stepping(Generic[BatchT]):
    """Trains on tickets in their order, and completes a step with the `colleagues`.

    `attack_schedule` hears every training step; `number_of` says what people know a rank of this
    team by; `pump` moves messages on.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        ring: VersionRing,
        learner: Learner[BatchT],
        colleagues: Colleagues,
        attack_schedule: AttackSchedule,
        ledger: Ledger,
        *,
        number_of: Callable[[int], int],
        pump: Callable[[], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._ring = ring
        self._learner = learner
        self._colleagues = colleagues
        self._attack_schedule = attack_schedule
        self._ledger = ledger
        self._number_of = number_of
        self._pump = pump
        self._clock = clock
        # Who else trains may take any time, and says that it is alive.
        self._wait = Wait(inf, clock=clock, sleep=sleep)
        self._headers: list[BatchHeader] = []
        self._last_ticket_seconds = 0.0
        self._last = Mine()
        self._fault: Fault | None = None
        self.wants_to_end = False
        """Whether this trainer is to end: all do then, after the step under way."""
        self.is_to_end = False
        """Whether all trainers end here."""
        self._is_agreed = False
        """Whether all trainers know the fault that ends the run."""

    @property
    def must_agree(self) -> bool:
        """Whether there are other trainers, which are to end at the same step."""
        return self._colleagues.are_there

    @property
    def is_exchanging(self) -> bool:
        """Whether the other trainers are waited for."""
        return self._colleagues.is_under_way

    def move_on(self) -> bool:
        """Move messages to and from the other trainers on; whether a step can be completed.

        Raises:
            ColleagueLostError: one of them is gone, or does not answer.
        """
        self._colleagues.keep_alive()
        return self._colleagues.is_under_way and self._colleagues.poll()

    def train(self, ticket: int, batch: BatchT, header: BatchHeader) -> None:
        """Take the gradient of the next ticket; with the last one of the step the sum begins."""
        began = self._clock()
        rule = self._dispatcher.rule
        settings = self._ring.settings[rule.first_version(ticket)]
        self._learner.train(ticket, batch, settings, self._pump)
        settle(self._learner, self._pump)
        self._headers.append(self._numbered(header))
        is_last = rule.ends_step(ticket)
        if is_last:
            self._begin(self._headers)
        seconds = self._clock() - began
        self._ledger.spent.train += seconds
        if is_last:
            self._last_ticket_seconds = seconds
        else:
            self._book(seconds)

    def complete(self) -> Completed:
        """Update the parameters by what all tickets of the step came to.

        Raises:
            BrokenBitsError: the trainers do not hold the same parameters.
            UserError, UnreadableError: a trainer has met it, and all leave the step undone.
            NonFiniteLossError: the loss is NaN or infinite.
        """
        began = self._clock()
        told = self._colleagues.take()
        self._heed(told)
        rate = self._learner.complete(told.values)
        settle(self._learner, self._pump)
        outcome = outcome_of(told.tickets, rate)
        require_finite(outcome, told.headers[-1].origin)
        step, header = self._dispatcher.step, header_of(told.headers, outcome)
        rule, ticket = self._dispatcher.rule, self._dispatcher.ticket
        self._attack_schedule.hear(
            TrainedStep(
                step=step,
                settings=self._ring.settings[rule.first_version(ticket)],
                gradient_magnitude=header.report.gradient_magnitude,
            )
        )
        seconds = self._clock() - began
        self._ledger.spent.train += seconds
        self._book(seconds + self._last_ticket_seconds)
        self._headers = []
        self.is_to_end = told.is_last
        return Completed(step=step, header=header, outcome=outcome, told=told)

    def record(self, done: Completed) -> StepRecord:
        """What is told of a step, with where the time went since the last one's record."""
        return self._ledger.record(done.step, done.header, done.outcome, done.told)

    def reported(self, record: StepRecord) -> None:
        """A step was reported: the next one begins, and the others are to hear of its seconds."""
        waited = record.wait_seconds + record.exchange_seconds
        self._last = Mine(wait_seconds=waited, total_seconds=record.total_seconds)
        self._ledger.begin()

    def note_fault(self, fault: Fault) -> None:
        """The other trainers are to hear of a fault, before which nothing else is done.

        Raises:
            Fault: there are none, or all know it.
        """
        if self._is_agreed or not self.must_agree:
            raise fault
        self._fault = self._fault or fault

    def tell_fault(self) -> bool:
        """Tell them, where there is one: all leave the step undone that comes next."""
        if self._fault is None:
            return False
        if not self._colleagues.is_under_way:
            self._begin(())
        self.wait()
        return True

    def raise_untold(self) -> None:
        """Raise a fault that came up too late for the others to hear of it."""
        if self._fault is not None:
            raise self._fault

    def begin_parting(self) -> None:
        """After the last step: hear whether any trainer has met a fault in it."""
        self._begin(())

    def part(self) -> None:
        """All have told.

        Raises:
            Fault: one of them has met it.
        """
        self._heed(self._colleagues.take())

    def wait(self) -> None:
        """Wait a moment for the other trainers."""
        self._wait.pause(str)

    def free(self) -> None:
        self._colleagues.free()

    def _begin(self, headers: Sequence[BatchHeader]) -> None:
        mine = replace(self._last, halt=Halt.INTERRUPTED if self.wants_to_end else Halt.NO)
        if self._fault is not None:
            mine = replace(mine, halt=halt_of(self._fault), fault=str(self._fault))
        self._wait.over()
        self._colleagues.begin(self._dispatcher.step, headers, mine)

    def _heed(self, summed: Summed) -> None:
        if summed.fault is not None:
            self._is_agreed = True
            raise summed.fault

    def _book(self, seconds: float) -> None:
        """Book the next ticket as consumed."""
        self._dispatcher.trained()
        self._dispatcher.pace.trained(seconds)

    def _numbered(self, header: BatchHeader) -> BatchHeader:
        """A header of this team with the numbers of the job, by which all trainers know it."""
        rule, origin = self._dispatcher.rule, header.origin
        number, rank = rule.number(origin.ticket), self._number_of(origin.rank)
        return replace(header, origin=replace(origin, ticket=number, rank=rank))
