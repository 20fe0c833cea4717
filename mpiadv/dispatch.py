"""Who crafts which ticket, and what to do next: pure book-keeping, events in, decisions out.

`CraftQueue` is one rank's bench: the tickets it crafts and which attack step it may run next.
`Dispatcher` is the trainer's book: what is granted, what is ready, when the trainer itself crafts.
Knows no MPI, no torch and no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush

from mpiadv.tickets import AttackSettings, StalenessRule

Versions = Mapping[int, AttackSettings]
"""The published versions a rank holds, and the attack settings each of them carries."""


class StalenessMode(Enum):
    """Which of the admissible versions an attack step uses."""

    FIXED = "fixed"
    BOUNDED = "bounded"


@dataclass(kw_only=True)
class Crafting:
    """A ticket on the bench of the rank that crafts it."""

    ticket: int
    settings: AttackSettings | None = None
    steps_done: int = 0
    first_version: int = -1
    last_version: int = -1


@dataclass(frozen=True, kw_only=True)
class AttackStep:
    """Permission to run one attack step: number `step` of `ticket`, on `version`."""

    ticket: int
    step: int
    version: int


class CraftQueue:
    """The tickets one rank crafts, oldest first.

    The oldest ticket whose next attack step may run goes first; a ticket that has to wait for
    fresher parameters gives way to the next one.
    """

    def __init__(self, rule: StalenessRule, mode: StalenessMode = StalenessMode.FIXED) -> None:
        self._rule = rule
        self._mode = mode
        self._tickets: dict[int, Crafting] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._tickets

    @property
    def tickets(self) -> list[int]:
        return sorted(self._tickets)

    def add(self, ticket: int) -> None:
        if ticket in self._tickets:
            raise ValueError(f"ticket {ticket} is on the bench already")
        self._tickets[ticket] = Crafting(ticket=ticket)

    def remove(self, ticket: int) -> Crafting:
        return self._tickets.pop(ticket)

    def next_step(self, versions: Versions, *, patient: bool = False) -> AttackStep | None:
        """The attack step to run next, or None while every ticket waits for parameters.

        A `patient` rank starts no younger ticket while an older one needs just the next version
        and the trainer will need that ticket at once: an attack step cannot be broken off, so
        the older ticket, and with it the trainer, would wait for the younger one's step. See
        `Rhythm.rewards_patience`.
        """
        for ticket in self.tickets:
            crafting = self._begun(ticket, versions)
            if crafting is None or self._is_done(crafting):
                continue
            version = self._usable(crafting, versions)
            if version is not None:
                return AttackStep(ticket=ticket, step=crafting.steps_done, version=version)
            if patient and self._is_urgent(crafting, versions):
                return None
        return None

    def settings(self, ticket: int) -> AttackSettings:
        """The attack settings of a ticket that has begun."""
        settings = self._tickets[ticket].settings
        assert settings is not None, f"ticket {ticket} has not begun"
        return settings

    def ran(self, step: AttackStep) -> None:
        """Book `step` as run."""
        crafting = self._tickets[step.ticket]
        if step.step != crafting.steps_done:
            raise ValueError(f"{step} ran out of turn: {crafting}")
        if step.step == 0:
            crafting.first_version = step.version
        crafting.last_version = step.version
        crafting.steps_done += 1

    def pop_crafted(self, versions: Versions) -> Crafting | None:
        """Take the oldest ticket that is crafted off the bench, None when there is none."""
        for ticket in self.tickets:
            crafting = self._begun(ticket, versions)
            if crafting is not None and self._is_done(crafting):
                return self._tickets.pop(ticket)
        return None

    def _begun(self, ticket: int, versions: Versions) -> Crafting | None:
        """The ticket with its settings, which its first version carries; None before that."""
        crafting = self._tickets[ticket]
        if crafting.settings is None:
            first = self._rule.first_version(ticket)
            if first not in versions:
                return None
            crafting.settings = versions[first]
            crafting.first_version = crafting.last_version = first
        return crafting

    def _is_done(self, crafting: Crafting) -> bool:
        return crafting.steps_done >= self._rule.crafting_steps(_num_steps(crafting))

    def _is_urgent(self, crafting: Crafting, versions: Versions) -> bool:
        """Whether the next version is all it needs, and the trainer needs it right after."""
        required = self._required(crafting)
        is_next = required == max(versions) + self._rule.publish_every
        return is_next and crafting.ticket - required <= 1

    def _required(self, crafting: Crafting) -> int:
        return self._rule.version(crafting.ticket, crafting.steps_done, _num_steps(crafting))

    def _usable(self, crafting: Crafting, versions: Versions) -> int | None:
        required = self._required(crafting)
        if self._mode is StalenessMode.FIXED:
            return required if required in versions else None
        newest = max((v for v in versions if v <= crafting.ticket), default=-1)
        return newest if newest >= required else None


def _num_steps(crafting: Crafting) -> int:
    assert crafting.settings is not None
    return crafting.settings.num_steps


class TicketState(Enum):
    """What the trainer knows of a live ticket."""

    GRANTED = auto()
    RETURNED = auto()
    """Its attacker was lost: to be granted again, or crafted by the trainer."""
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
    (TicketState.RETURNED, TicketEvent.GRANTED_AGAIN): TicketState.GRANTED,
    (TicketState.RETURNED, TicketEvent.TAKEN): TicketState.OWN,
    (TicketState.RECRAFTED, TicketEvent.ARRIVED): TicketState.READY,
    (TicketState.RECRAFTED, TicketEvent.CRAFTED_HERE): TicketState.READY,
    (TicketState.OWN, TicketEvent.CRAFTED_HERE): TicketState.READY,
}


@dataclass(frozen=True, kw_only=True)
class Train:
    """Decision: train on `ticket`, whose batch is ready."""

    ticket: int


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Decision: let `attacker` craft `ticket`; `patient`: it has time to spare for waiting."""

    ticket: int
    attacker: int
    patient: bool


@dataclass(kw_only=True)
class Pace:
    """Measured seconds to craft a batch on an attacker and to train on one, smoothed."""

    craft_seconds: float = 0.0
    train_seconds: float = 0.0
    weight: float = 0.2

    def crafted(self, seconds: float) -> None:
        self.craft_seconds = self._smoothed(self.craft_seconds, seconds)

    def trained(self, seconds: float) -> None:
        self.train_seconds = self._smoothed(self.train_seconds, seconds)

    def _smoothed(self, old: float, new: float) -> float:
        return new if old == 0.0 else old + self.weight * (new - old)


class Dispatcher:
    """The trainer's book: grants, ready batches, own crafting.

    Held by construction: tickets are consumed exactly once and in order; at most
    `max_staleness + 1` tickets are live; at most `outstanding` tickets per attacker, and
    `max_staleness + 1` in all, are granted and not yet both consumed and returned.

    Without `trainer_crafts` the trainer takes a ticket of its own only where nothing is live and
    no attacker can be granted one: alone, it still crafts everything.
    """

    def __init__(
        self,
        rule: StalenessRule,
        *,
        attackers: list[int],
        outstanding: int,
        num_tickets: int,
        first_ticket: int = 0,
        mode: StalenessMode = StalenessMode.FIXED,
        trainer_crafts: bool = True,
    ) -> None:
        self.rule = rule
        self.step = first_ticket
        self.num_tickets = num_tickets
        self.pace = Pace()
        self.own = CraftQueue(rule, mode)
        self._outstanding = outstanding
        self._trainer_crafts = trainer_crafts
        self._closed = False
        self._next_ticket = first_ticket
        self._states: dict[int, TicketState] = {}
        self._returned: list[int] = []
        self._owed: dict[int, set[int]] = {attacker: set() for attacker in attackers}
        self._charged: dict[int, set[int]] = {attacker: set() for attacker in attackers}

    @property
    def finished(self) -> bool:
        return self.step >= self.num_tickets

    @property
    def num_live(self) -> int:
        return self._next_ticket - self.step

    def state(self, ticket: int) -> TicketState | None:
        return self._states.get(ticket)

    def owed_by(self, attacker: int) -> set[int]:
        """Tickets that `attacker` was granted and has not returned."""
        return self._owed[attacker]

    def next_grant(self) -> Grant | None:
        """The next ticket to give out and the attacker to craft it, None while there is none."""
        if not self._returned and not self._startable():
            return None
        attacker = self._least_burdened()
        if attacker is None:
            return None
        if self._returned:
            ticket = heappop(self._returned)
            self._happened(ticket, TicketEvent.GRANTED_AGAIN)
        else:
            ticket = self._take(TicketState.GRANTED)
        self._owed[attacker].add(ticket)
        self._charged[attacker].add(ticket)
        return Grant(ticket=ticket, attacker=attacker, patient=self._attackers_have_slack())

    def arrived(self, ticket: int, attacker: int) -> bool:
        """Book a batch as received; False when another copy of it came first."""
        self._owed[attacker].remove(ticket)
        if self._states.get(ticket) in (None, TicketState.READY):
            self._release(ticket, attacker)
            return False
        self._happened(ticket, TicketEvent.ARRIVED)
        if ticket in self.own:
            self.own.remove(ticket)
        return True

    def close(self) -> None:
        """Book that the run ends here: live tickets may be dropped from now on."""
        self._closed = True

    def dropped(self, ticket: int, attacker: int) -> None:
        """Book that `attacker` gave up a ticket, consumed without it or not needed any more."""
        if ticket in self._states and not self._closed:
            raise ValueError(f"attacker {attacker} dropped ticket {ticket}, which is live")
        self._owed[attacker].remove(ticket)
        self._release(ticket, attacker)

    def lost(self, attacker: int) -> list[int]:
        """Book that `attacker` is gone for good: the tickets that are to be crafted anew, sorted.

        From now on nothing may be booked as coming from it.
        """
        self._charged.pop(attacker)
        owed = sorted(self._owed.pop(attacker))
        anew = [ticket for ticket in owed if self.state(ticket) is TicketState.GRANTED]
        for ticket in anew:
            self._happened(ticket, TicketEvent.LOST)
            heappush(self._returned, ticket)
        return anew

    def overdue(self, ticket: int) -> None:
        """Craft a granted ticket here as well; the first copy wins, both are identical."""
        self._happened(ticket, TicketEvent.OVERDUE)
        self.own.add(ticket)

    def crafted_here(self, versions: Versions) -> Crafting | None:
        """The next ticket whose crafting by the trainer is complete; it becomes ready."""
        crafting = self.own.pop_crafted(versions)
        if crafting is not None:
            self._happened(crafting.ticket, TicketEvent.CRAFTED_HERE)
        return crafting

    def decide(self, versions: Versions) -> Train | AttackStep | None:
        """What the trainer does now: train, run one attack step of its own, or wait (None)."""
        if self._states.get(self.step) is TicketState.READY:
            return Train(ticket=self.step)
        step = self.own.next_step(versions)
        if step is None and self._take_own():
            step = self.own.next_step(versions)
        return step

    def trained(self) -> None:
        """Book the next ticket in order as consumed."""
        if self._states.get(self.step) is not TicketState.READY:
            raise ValueError(f"ticket {self.step} is not ready: {self.state(self.step)}")
        del self._states[self.step]
        for attacker in self._owed:
            self._release(self.step, attacker)
        self.step += 1

    def _release(self, ticket: int, attacker: int) -> None:
        """Give the credit back once the ticket is both consumed and returned."""
        if ticket not in self._states and ticket not in self._owed[attacker]:
            self._charged[attacker].discard(ticket)

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

    def _least_burdened(self) -> int | None:
        """The attacker with the fewest tickets to craft among those with credit left."""
        if sum(map(len, self._charged.values())) >= self.rule.window:
            return None
        free = [a for a in self._charged if len(self._charged[a]) < self._outstanding]
        return min(free, key=lambda a: (len(self._owed[a]), a), default=None)

    def _take_own(self) -> bool:
        """Take a ticket to craft here; False where there is none, or attackers will do it."""
        if self._returned:
            # No attacker had credit for it, and the trainer would wait for it.
            ticket = heappop(self._returned)
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
        is_worth_it = self._trainer_crafts and self._attackers_fall_short()
        return self._startable() and (self.num_live == 0 or is_worth_it)

    def _attackers_fall_short(self) -> bool:
        """Whether all attackers together craft clearly fewer batches than training takes."""
        return self._supply() < SHORTFALL * self.pace.craft_seconds or self._supply() == 0.0

    def _attackers_have_slack(self) -> bool:
        """Whether all attackers together could craft more batches than training takes."""
        return self._supply() > self.pace.craft_seconds

    def _supply(self) -> float:
        """Seconds of crafting that all attackers do while the trainer trains on one batch."""
        return len(self._owed) * self.pace.train_seconds


SHORTFALL = 0.6
"""Below this share of the trainer's demand the attackers' supply counts as clearly short.

Between this share and 1 the trainer has so little time left for a ticket of its own that the
ticket would be overdue before it is crafted, and hold up the attackers' refreshed steps."""
