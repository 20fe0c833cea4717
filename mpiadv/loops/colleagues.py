"""The trainers of the other teams: what a step takes of them. Knows no MPI and no torch.

Every trainer does the same steps: with its own share of the tickets of one it begins a sum over all
trainers, and completes the step with that. What they have to agree on travels along: whether to
end, and whether they all still hold the same parameters.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpiadv.comm.links import Allocate
from mpiadv.comm.messages import BatchHeader, Bytes
from mpiadv.comm.notes import (
    NOT_COMPARED,
    Halt,
    Note,
    NoteBoard,
    TicketNote,
    add_notes,
)
from mpiadv.comm.roster import Roster
from mpiadv.comm.sums import IsReady, Sums, at_once
from mpiadv.contract.accounts import TicketTold, TrainerSeconds
from mpiadv.contract.turns import TRAINER
from mpiadv.loops.silence import Silence
from mpiadv.loops.supervision import WORDS_PER_DEADLINE
from mpiadv.process.errors import (
    BrokenBitsError,
    ColleagueLostError,
    SampleError,
    SilentRankError,
    UnreadableError,
    UserError,
)
from mpiadv.work.protocols import Summing

COMPARED_EVERY = 50
"""Training steps between two comparisons of the parameters, beside those before checkpoints."""

Fault = UserError | UnreadableError | SilentRankError
"""What ends a run in order, on all trainers at once."""

FAULTS: Mapping[Halt, type[Fault]] = {
    Halt.SAMPLES: SampleError,
    Halt.UNREAD: UnreadableError,
    Halt.REFUSED: UserError,
    Halt.SILENT: SilentRankError,
}
"""What a trainer has met, by what it tells of it."""


def halt_of(fault: Exception) -> Halt:
    """What to tell of what a trainer has met."""
    return next(halt for halt, kind in FAULTS.items() if isinstance(fault, kind))


@dataclass(frozen=True, kw_only=True)
class Summed:
    """What all trainers told of a step: headers of all its tickets, and what training on them did.

    `values`: the sum of what the tickets come to; None where one trainer has all of them.
    """

    headers: Sequence[BatchHeader]
    tickets: Sequence[TicketTold]
    values: Bytes | None = None
    is_last: bool = False
    """Whether all end after this step."""
    fault: Fault | None = None
    """What one of them has met: there is nothing else then, and all leave the step undone."""
    others: Sequence[TrainerSeconds] = ()


@dataclass(frozen=True, kw_only=True)
class Mine:
    """What this trainer tells with its share."""

    halt: Halt = Halt.NO
    fault: str = ""
    wait_seconds: float = 0.0
    total_seconds: float = 0.0


class Colleagues(Protocol):
    """What the loop asks of the other trainers, if there are any."""

    @property
    def are_there(self) -> bool:
        """Whether there are any: then all end at the same step."""

    @property
    def is_under_way(self) -> bool:
        """Whether a sum was begun and its result not taken yet."""

    def begin(self, step: int, headers: Sequence[BatchHeader], mine: Mine) -> None:
        """Begin the sum over the tickets of a step; without headers: there is no share of it."""

    def poll(self) -> bool:
        """Whether what was begun is there.

        Raises:
            ColleagueLostError: a trainer is gone, or does not answer.
        """

    def take(self) -> Summed:
        """What is there.

        Raises:
            BrokenBitsError: the trainers do not hold the same parameters.
        """

    def keep_alive(self) -> None:
        """Now and then: tell the others to go on waiting."""

    def free(self) -> None:
        """Let go of what it holds, when nothing is under way."""


class Alone:
    """Those of a trainer that has none: its own share is all there is."""

    are_there = False
    is_under_way = False

    def __init__(self, learner: Summing) -> None:
        self._learner = learner
        self._headers: Sequence[BatchHeader] = ()

    def begin(self, step: int, headers: Sequence[BatchHeader], mine: Mine) -> None:
        self._headers, self.is_under_way = headers, True

    def poll(self) -> bool:
        return self.is_under_way

    def take(self) -> Summed:
        self.is_under_way = False
        return Summed(headers=self._headers, tickets=self._learner.told())

    def keep_alive(self) -> None:
        """There is nobody to be told."""

    free = keep_alive


class SeveralTrainers:
    """Those of a trainer among several.

    `roster` names them by team; `compares(step)` says before which steps, beside every
    `COMPARED_EVERY`th, all compare their parameters. What of the others is out of the ordinary
    `on_event(kind, text)` hears; `tell_event` puts something there that they are to hear.
    """

    are_there = True

    def __init__(
        self,
        sums: Sums,
        learner: Summing,
        roster: Roster,
        *,
        num_tickets: int,
        allocate: Allocate,
        deadline_seconds: float,
        compares: Callable[[int], bool] = lambda step: False,
        on_event: Callable[[str, str], None] = lambda kind, text: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.is_under_way = False
        self._sums = sums
        self._learner = learner
        self._roster = roster
        self._board = NoteBoard(num_trainers=sums.size, num_tickets=num_tickets)
        self._deadline_seconds = deadline_seconds
        self._compares = compares
        self._on_event = on_event
        self._clock = clock
        self._buffer = allocate(learner.sum_bytes + self._board.num_bytes)
        self._values = self._buffer[: learner.sum_bytes]
        self._notes = self._buffer[learner.sum_bytes :]
        self._events: list[tuple[str, str]] = []
        self._is_there = self._is_over = False
        self._step = 0
        self._agreed_step = -1
        self._silence = Silence(deadline_seconds, clock)
        self._last_word = clock()

    def tell_event(self, kind: str, text: str) -> None:
        """Tell the others of something with one of the next shares."""
        self._events.append((kind, text))

    def begin(self, step: int, headers: Sequence[BatchHeader], mine: Mine) -> None:
        self._step, self.is_under_way, self._is_there = step, True, False
        is_compared = step % COMPARED_EVERY == 0 or self._compares(step)
        kind, event = self._events.pop(0) if self._events else ("", "")
        note = Note(
            halt=mine.halt,
            has_share=bool(headers),
            fault=mine.fault,
            fingerprint=self._learner.fingerprint() if is_compared else NOT_COMPARED,
            wait_seconds=mine.wait_seconds,
            total_seconds=mine.total_seconds,
            event_kind=kind,
            event=event,
        )
        tickets: list[TicketNote] = []
        is_ready: IsReady = at_once
        if headers:
            pairs = zip(headers, self._learner.told(), strict=True)
            tickets = [_ticket_note(header, told) for header, told in pairs]
            is_ready = self._learner.give_sum(self._values)
        self._board.write(self._notes, self._sums.rank, note, tickets)
        self._sums.begin(self._buffer, self._add, is_ready)

    def poll(self) -> bool:
        if self._is_over:
            return False
        if self._sums.poll():
            self._is_there = self.is_under_way
        else:
            self._look_after()
        return self._is_there

    def take(self) -> Summed:
        self.is_under_way = self._is_there = False
        notes, tickets = self._board.read(self._notes)
        self._require_same_bits(notes)
        for rank, note in enumerate(notes):
            if note.event_kind and rank != self._sums.rank:
                self._on_event(note.event_kind, note.event)
        for note in notes:
            if note.halt.is_fault:
                fault = FAULTS[note.halt](note.fault)
                return Summed(headers=(), tickets=(), fault=fault)
        return Summed(
            headers=[ticket.header for ticket in tickets],
            tickets=[_ticket_told(ticket) for ticket in tickets],
            values=self._values,
            is_last=any(note.halt is Halt.INTERRUPTED for note in notes),
            others=[
                TrainerSeconds(
                    rank=self._roster.number(rank),
                    wait_seconds=note.wait_seconds,
                    total_seconds=note.total_seconds,
                )
                for rank, note in enumerate(notes)
                if rank != self._sums.rank
            ],
        )

    def keep_alive(self) -> None:
        now = self._clock()
        if self._is_over:
            return
        if now - self._last_word > self._deadline_seconds / WORDS_PER_DEADLINE:
            self._last_word = now
            self._sums.keep_alive()
            self._sums.poll()

    def free(self) -> None:
        self._is_over = True
        self._sums.free()

    def take_events(self) -> list[tuple[str, str]]:
        """Those that the others have not been told, when nothing is begun any more."""
        events, self._events = self._events, []
        return events

    def _add(self, start: int, theirs: Bytes) -> None:
        """To the learner's part, and to the notes behind it."""
        end = self._values.size
        if start < end:
            self._learner.add_sum(self._values, start, theirs[: end - start])
        if start + theirs.size > end:
            first = max(start, end)
            mine = self._notes[first - end : start + theirs.size - end]
            add_notes(mine, theirs[first - start :])

    def _look_after(self) -> None:
        """End where a trainer is gone, or has been silent for too long."""
        for rank in self._sums.take_lost():
            raise self._lost(rank, "was lost")
        if not self._silence.is_due():
            return
        for rank in range(self._sums.size):
            if rank == self._sums.rank:
                continue
            if self._silence.is_too_long(rank, self._sums.since_sign_of_life(rank)):
                raise self._lost(rank, f"has not answered for {self._deadline_seconds:g} s")

    def _lost(self, rank: int, how: str) -> ColleagueLostError:
        # What is under way never comes to an end: whoever saves what there is moves on its team's.
        self.is_under_way, self._is_over = False, True
        text = f"{self._roster.name(rank)}, which trains, {how}: go on with --resume"
        return ColleagueLostError(text, is_lead=rank == TRAINER)

    def _require_same_bits(self, notes: Sequence[Note]) -> None:
        found = [note.fingerprint for note in notes]
        if found[0] == NOT_COMPARED:
            return
        usual = max(found, key=found.count)  # the first of several
        others = [rank for rank, fingerprint in enumerate(found) if fingerprint != usual]
        if not others:
            self._agreed_step = self._step
            return
        names = " and ".join(self._roster.name(rank) for rank in others)
        like = self._roster.name(found.index(usual))
        where = "there" if 2 * found.count(usual) > len(found) else "on one side or the other"
        agreed = self._agreed_step
        since = f", as they were after step {agreed}" if agreed >= 0 else ""
        raise BrokenBitsError(
            f"after step {self._step} the parameters on {names} are not those on {like}{since}: "
            f"memory or processor may be broken {where}, or of another kind; leave that host out, "
            "and go on with --resume"
        )


def _ticket_note(header: BatchHeader, told: TicketTold) -> TicketNote:
    magnitude = told.gradient_magnitude
    return TicketNote(
        header=header,
        loss=told.loss,
        accuracy=told.accuracy,
        gradient_magnitude=0.0 if magnitude is None else magnitude,
        tells_magnitude=magnitude is not None,
    )


def _ticket_told(note: TicketNote) -> TicketTold:
    return TicketTold(
        loss=note.loss,
        accuracy=note.accuracy,
        gradient_magnitude=note.gradient_magnitude if note.tells_magnitude else None,
    )
