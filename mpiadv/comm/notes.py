"""What trainers tell each other beside their sums: a note each, and of each ticket what it told.

They travel as a part of the sum: each trainer writes in places of its own, where the others have
zeros. Knows no MPI.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from mpiadv.comm.messages import BatchHeader, Bytes, aligned
from mpiadv.contract.columns import column, from_record, record_type, to_record


class Halt(IntEnum):
    """Whether, and why, a trainer wants all of them to end after this step, or before it."""

    NO = 0
    INTERRUPTED = 1
    SAMPLES = 2
    """Samples are not what they should be: it has no share of this step."""
    UNREAD = 3
    """They could not be read for a while, likewise."""
    REFUSED = 4
    """Other bad input, likewise."""
    SILENT = 5
    """An attacker of its team does not answer, and the job cannot do without it."""

    @property
    def is_fault(self) -> bool:
        return self > Halt.INTERRUPTED


NOT_COMPARED = -1


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one trainer tells the others with its share of a step.

    `has_share`: whether its tickets are in the sum. `fingerprint`: of the parameters before the
    step, where all compare them now. Its seconds are those of its last step.
    """

    halt: Halt = Halt.NO
    has_share: bool = True
    fault: str = column("S1024", "why it ends", default="")
    fingerprint: int = NOT_COMPARED
    wait_seconds: float = 0.0
    total_seconds: float = 0.0
    event_kind: str = column("S32", "something out of the ordinary", default="")
    event: str = column("S512", "what", default="")


@dataclass(frozen=True, kw_only=True)
class TicketNote:
    """What a ticket told, of all trainers' tickets by its number."""

    header: BatchHeader
    loss: float
    accuracy: float
    gradient_magnitude: float
    tells_magnitude: bool


_NOTE, _TICKET = record_type(Note), record_type(TicketNote)


@dataclass(frozen=True, kw_only=True)
class NoteBoard:
    """Where the notes of a step lie: of `num_trainers`, and of each of its `num_tickets`."""

    num_trainers: int
    num_tickets: int

    @property
    def num_bytes(self) -> int:
        used = self.num_trainers * _NOTE.itemsize + self.num_tickets * _TICKET.itemsize
        return aligned(used)

    def write(self, board: Bytes, trainer: int, note: Note, tickets: Sequence[TicketNote]) -> None:
        """Write a trainer's own: `tickets` are all of its share, or none."""
        board[:] = 0
        notes, places = self._arrays(board)
        notes[trainer] = to_record(note)
        first = trainer * (self.num_tickets // self.num_trainers)
        for place, ticket in enumerate(tickets, start=first):
            places[place] = to_record(ticket)

    def read(self, board: Bytes) -> tuple[list[Note], list[TicketNote]]:
        """Those of all; none of any ticket where a trainer has no share of the step."""
        notes, places = self._arrays(board)
        told = [from_record(Note, record.item()) for record in notes]
        if not all(note.has_share for note in told):
            return told, []
        return told, [from_record(TicketNote, record.item()) for record in places]

    def _arrays(self, board: Bytes) -> tuple[Any, ...]:
        notes = np.ndarray((self.num_trainers,), _NOTE, board)
        start = self.num_trainers * _NOTE.itemsize
        return notes, np.ndarray((self.num_tickets,), _TICKET, board, start)


def add_notes(mine: Bytes, theirs: Bytes) -> None:
    """Add notes to those in `mine`: where one has something the other has zeros."""
    np.bitwise_or(mine, theirs, out=mine)
