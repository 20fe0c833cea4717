"""What the trainer knows of a live ticket, and the table of how that may change.

Knows no MPI, no torch and no clock.
"""

from collections.abc import Mapping
from enum import Enum, auto


class TicketState(Enum):
    """What the trainer knows of a live ticket."""

    GRANTED = auto()
    RETURNED = auto()
    """Its attacker is lost or late: to be granted again, or crafted by the trainer."""
    OWN = auto()
    RECRAFTED = auto()
    READY = auto()


class TicketEvent(Enum):
    """What can happen to a live ticket."""

    ARRIVED = auto()
    CRAFTED_HERE = auto()
    OVERDUE = auto()
    LOST = auto()
    GRANTED_AGAIN = auto()
    TAKEN = auto()


TRANSITIONS: Mapping[tuple[TicketState, TicketEvent], TicketState] = {
    (TicketState.GRANTED, TicketEvent.ARRIVED): TicketState.READY,
    (TicketState.GRANTED, TicketEvent.OVERDUE): TicketState.RECRAFTED,
    (TicketState.GRANTED, TicketEvent.LOST): TicketState.RETURNED,
    (TicketState.RETURNED, TicketEvent.ARRIVED): TicketState.READY,
    (TicketState.RETURNED, TicketEvent.GRANTED_AGAIN): TicketState.GRANTED,
    (TicketState.RETURNED, TicketEvent.TAKEN): TicketState.OWN,
    (TicketState.RECRAFTED, TicketEvent.ARRIVED): TicketState.READY,
    (TicketState.RECRAFTED, TicketEvent.CRAFTED_HERE): TicketState.READY,
    (TicketState.OWN, TicketEvent.ARRIVED): TicketState.READY,
    (TicketState.OWN, TicketEvent.CRAFTED_HERE): TicketState.READY,
}
