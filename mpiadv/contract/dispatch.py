"""Who crafts which ticket, and what to do next: pure book-keeping, events in, decisions out.

`Dispatcher` is the trainer's book: what is granted, what is ready, when the trainer itself crafts;
`mpiadv.contract.turns` tells it whose turn it is. Knows no MPI, no torch and no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from mpiadv.contract.craft_queue import AttackStep, Crafting, CraftQueue, StalenessMode, Versions
from mpiadv.contract.tickets import StalenessRule
from mpiadv.contract.turns import TRAINER, Grant, Pace, Turns


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


@dataclass(frozen=True, kw_only=True)
class Train:
    """Decision: train on `ticket`, whose batch is ready."""

    ticket: int


class Dispatcher:
    """The trainer's book: grants, ready batches, own crafting.

    Held by construction: tickets are consumed exactly once and in order; at most those of
    `max_staleness + 1` training steps are live; at most `outstanding` tickets per attacker (None:
    by its speed), and as many in all as may be live, are granted and not yet both consumed and
    returned.

    A ticket may be with several ranks, the first copy counts and all are identical: a late
    attacker's tickets are granted again, and one that is too slow to take part is tried from time
    to time on a copy of what another crafts.

    Without `trainer_crafts` the trainer takes a ticket of its own only where nothing is live and
    no attacker can be granted one: alone, it still crafts everything.
    """

    def __init__(
        self,
        rule: StalenessRule,
        *,
        attackers: list[int],
        outstanding: int | None,
        num_tickets: int,
        first_ticket: int = 0,
        mode: StalenessMode = StalenessMode.FIXED,
        trainer_crafts: bool = True,
    ) -> None:
        self.rule = rule
        self.ticket = first_ticket
        """The next one to be consumed."""
        self.num_tickets = num_tickets
        self.own = CraftQueue(rule, mode)
        self._turns = Turns(
            attackers,
            outstanding=outstanding,
            window=rule.window,
            trainer_crafts=trainer_crafts,
        )
        self._trainer_crafts = trainer_crafts
        self._closed = False
        self._next_ticket = first_ticket
        self._states: dict[int, TicketState] = {}
        self.holders: dict[int, int] = {}
        """The attacker that a granted ticket is expected from; others may have copies of it."""
        self._returned: set[int] = set()

    @property
    def pace(self) -> Pace:
        """How fast the attackers craft and the trainer trains: to be told by the trainer."""
        return self._turns.pace

    @property
    def step(self) -> int:
        """Training steps that are complete."""
        return self.rule.step_of(self.ticket)

    @property
    def is_between_steps(self) -> bool:
        """Whether no ticket of the next training step is consumed yet."""
        return self.ticket % self.rule.team_tickets == 0

    @property
    def finished(self) -> bool:
        return self.ticket >= self.num_tickets

    @property
    def num_live(self) -> int:
        return self._next_ticket - self.ticket

    def state(self, ticket: int) -> TicketState | None:
        return self._states.get(ticket)

    def owed_by(self, attacker: int) -> set[int]:
        """Tickets that `attacker` was granted and has not returned."""
        return self._turns.owed[attacker]

    def next_grant(self) -> Grant | None:
        """The next ticket to give out and the attacker to craft it, None while there is none."""
        ticket = self._due()
        attacker = None if ticket is None else self._turns.whose_turn(ticket, self.ticket)
        if ticket is None or attacker is None:
            return self._next_trial()
        if ticket in self._returned:
            self._returned.remove(ticket)
            self._happened(ticket, TicketEvent.GRANTED_AGAIN)
        else:
            self._take(TicketState.GRANTED)
        self.holders[ticket] = attacker
        self._turns.granted(ticket, attacker)
        return Grant(ticket=ticket, attacker=attacker, patient=self._turns.has_slack())

    def in_a_hurry(self, version: int, versions: Versions) -> list[int]:
        """Who needs a new version for the ticket that is trained on right after the version's step.

        Nobody where attacks are finished on older parameters. `versions` are the earlier ones.
        """
        rule = self.rule
        ticket = (version + 1) * rule.team_tickets
        settings = versions.get(rule.first_version(ticket))
        if settings is None:
            return []
        last = max(0, rule.crafting_steps(settings.num_steps) - 1)
        if rule.version(ticket, last, settings.num_steps) != version:
            return []
        holder = self.holders.get(ticket, TRAINER)
        return [holder] if holder != TRAINER and ticket in self.owed_by(holder) else []

    def arrived(self, ticket: int, attacker: int) -> bool:
        """Book a batch as received; False when another copy of it came first."""
        self._turns.delivered(ticket, attacker)
        state = self._states.get(ticket)
        if state in (None, TicketState.READY):
            self._release(ticket, attacker)
            return False
        self._happened(ticket, TicketEvent.ARRIVED)
        if ticket in self.own:
            self.own.remove(ticket)
        self._returned.discard(ticket)
        return True

    def close(self) -> None:
        """Book that the run ends here: live tickets may be dropped from now on."""
        self._closed = True

    def dropped(self, ticket: int, attacker: int) -> None:
        """Book that `attacker` gave up a ticket, consumed without it or not needed any more."""
        if ticket in self._states and not self._closed:
            raise ValueError(f"attacker {attacker} dropped ticket {ticket}, which is live")
        self._turns.gave_up(ticket, attacker, self.ticket)
        self._release(ticket, attacker)

    def unread(self, ticket: int, attacker: int) -> None:
        """Book that `attacker` cannot read the images of a ticket: it is crafted here.

        Unless another attacker has it, or it was crafted already.
        """
        state = self.state(ticket)
        if state is TicketState.GRANTED and self.holders[ticket] == attacker:
            self.overdue(ticket)
        elif state is TicketState.RETURNED:
            self._returned.remove(ticket)
            self._happened(ticket, TicketEvent.TAKEN)
            self.own.add(ticket)
        self._turns.gave_up(ticket, attacker, self.ticket)
        self._release(ticket, attacker)

    def lost(self, attacker: int) -> list[int]:
        """Book that `attacker` is gone for good: the tickets that are to be crafted anew, sorted.

        From now on nothing may be booked as coming from it.
        """
        return self._take_back(attacker, self._turns.remove(attacker))

    def overdue(self, ticket: int) -> None:
        """Craft a granted ticket here as well; the first copy wins, both are identical.

        Whoever holds it counts as late, and what else it holds is given out again.
        """
        self._happened(ticket, TicketEvent.OVERDUE)
        self.own.add(ticket)
        attacker = self.holders[ticket]
        self._turns.late.add(attacker)
        self._take_back(attacker, sorted(self._turns.owed[attacker]))

    def crafted_here(self, versions: Versions) -> Crafting | None:
        """The next ticket whose crafting by the trainer is complete; it becomes ready."""
        crafting = self.own.pop_crafted(versions)
        if crafting is not None:
            self._happened(crafting.ticket, TicketEvent.CRAFTED_HERE)
        return crafting

    def decide(self, versions: Versions, *, may_train: bool = True) -> Train | AttackStep | None:
        """What the trainer does now: train, run one attack step of its own, or wait (None)."""
        if may_train and self._states.get(self.ticket) is TicketState.READY:
            return Train(ticket=self.ticket)
        step = self.own.next_step(versions)
        if step is None and self._take_own():
            step = self.own.next_step(versions)
        return step

    def trained(self) -> None:
        """Book the next ticket in order as consumed."""
        if self._states.get(self.ticket) is not TicketState.READY:
            raise ValueError(f"ticket {self.ticket} is not ready: {self.state(self.ticket)}")
        del self._states[self.ticket]
        self.holders.pop(self.ticket, None)
        self._turns.consumed(self.ticket)
        self.ticket += 1

    def _release(self, ticket: int, attacker: int) -> None:
        """Give the credit back once the ticket is both consumed and returned."""
        if ticket not in self._states:
            self._turns.release(ticket, attacker)

    def _take_back(self, attacker: int, owed: list[int]) -> list[int]:
        """Have others craft what `attacker` was to craft; returns which tickets these are."""
        anew = [
            ticket
            for ticket in owed
            if self.state(ticket) is TicketState.GRANTED and self.holders[ticket] == attacker
        ]
        for ticket in anew:
            del self.holders[ticket]
            self._happened(ticket, TicketEvent.LOST)
        self._returned.update(anew)
        return anew

    def _happened(self, ticket: int, event: TicketEvent) -> None:
        state = self._states.get(ticket)
        following = None if state is None else TRANSITIONS.get((state, event))
        if following is None:
            raise ValueError(f"ticket {ticket} is {state}: {event} cannot happen to it")
        self._states[ticket] = following

    def _startable(self) -> bool:
        newest = min(self.num_tickets - 1, self.rule.newest_startable(self.step))
        return self._next_ticket <= newest

    def _take(self, state: TicketState) -> int:
        ticket = self._next_ticket
        self._next_ticket += 1
        self._states[ticket] = state
        return ticket

    def _due(self) -> int | None:
        """The next ticket to give out, None while there is none."""
        return min(self._returned, default=self._next_ticket if self._startable() else None)

    def _next_trial(self) -> Grant | None:
        """A copy of the newest ticket at work, for an attacker that was too slow so far."""
        at_work = (TicketState.GRANTED, TicketState.OWN)
        newest = max((t for t, state in self._states.items() if state in at_work), default=None)
        attacker = None if newest is None else self._turns.whose_trial(self.ticket)
        if newest is None or attacker is None:
            return None
        self._turns.tried(newest, attacker)
        return Grant(ticket=newest, attacker=attacker, patient=False)

    def _take_own(self) -> bool:
        """Take a ticket to craft here; False where there is none, or attackers will do it."""
        ticket = min(self._returned, default=None)
        if ticket is not None and (self._trainer_crafts or ticket == self.ticket):
            # No attacker had credit for it, and the trainer would wait for it.
            self._returned.remove(ticket)
            self._happened(ticket, TicketEvent.TAKEN)
            self.own.add(ticket)
            return True
        if self._may_take_new():
            self.own.add(self._take(TicketState.OWN))
            return True
        return False

    def _may_take_new(self) -> bool:
        # With nothing live no attacker has credit left: all of it is on tickets consumed without
        # them, and may be so for long.
        is_worth_it = self._trainer_crafts and self._turns.falls_short()
        return self._startable() and (self.num_live == 0 or is_worth_it)
