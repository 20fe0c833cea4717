"""The trainer's book of its attackers: what each owes, how fast it is, whose turn it is.

Tickets are consumed in order, so a batch that comes late holds up all that come after it, and an
attacker with many tickets in a row is overloaded while others idle. Attackers therefore take turns
evenly, each as often as its speed allows, and one that would be too late has no turn. Knows no
MPI, no torch and no clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

TRAINER = 0
"""The rank that trains."""

NUM_RECENT = 3
"""How many of a rank's last batches tell its pace."""

SHORTEST_SECONDS = 1e-6
"""Least that crafting a batch counts as: batches without attack steps take no time."""

WORTH_WAITING = 1.5
"""A ticket waits for a busy attacker rather than go to one that takes so many times as long."""

SHORTFALL = 0.6
"""Below this share of the trainer's demand the attackers' supply counts as clearly short.

Between this share and 1 the trainer has so little time left for a ticket of its own that the
ticket would be overdue before it is crafted, and hold up the attackers' refreshed steps."""

ROOM_FOR_ATTACKERS = 0.8
"""Of the attackers' part of the window, how much they may hold while the trainer crafts, too.

In simulations of 2 and 4 ranks with a credit of 8 tickets each, 1 cost 6 % of the speed and 0.8
next to nothing."""

USUAL_CREDIT = 2
"""Tickets that an attacker as slow as the slowest may have: one in work, and the next."""

RETRY_TICKETS = 200
"""Tickets between two trials of an attacker that is too slow."""

OVERDUE_FACTOR, OVERDUE_SECONDS = 10.0, 1.0
"""A ticket is overdue after so many times the seconds that its holder usually takes for one, and so
many more."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Let `attacker` craft `ticket`; `patient`: it has time to spare for waiting."""

    ticket: int
    attacker: int
    patient: bool


NO_GRANT = Grant(ticket=-1, attacker=0, patient=False)


class Pace:
    """Measured seconds to craft a batch on each attacker, to train on one, to craft one here.

    The median of a rank's last batches counts: one hiccup says nothing about its speed.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self.train_seconds = 0.0
        self._weight = weight
        self._recent: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._fastest = 1.0

    @property
    def is_known(self) -> bool:
        """Whether any rank's crafting has been measured."""
        return bool(self._medians)

    def crafted(self, seconds: float, rank: int) -> None:
        """Book that `rank`, 0 for the trainer, worked so long on a batch, waits not counted."""
        recent = self._recent.setdefault(rank, deque(maxlen=NUM_RECENT))
        recent.append(max(seconds, SHORTEST_SECONDS))
        self._medians[rank] = median(recent)
        self._fastest = min(self._medians.values())

    def trained(self, seconds: float) -> None:
        old = self.train_seconds
        self.train_seconds = seconds if old == 0.0 else old + self._weight * (seconds - old)

    def is_settled(self, rank: int) -> bool:
        """Whether as many of a rank's batches have been measured as count: the first are slower."""
        return len(self._recent.get(rank, ())) == NUM_RECENT

    def craft_seconds(self, attacker: int) -> float:
        """Seconds per batch; of an unmeasured rank those of the fastest, of all of them 1."""
        return self._medians.get(attacker, self._fastest)

    def allowed_seconds(self, attacker: int) -> float:
        """For how long it may have a ticket; for ever while no rank's crafting is measured."""
        if not self.is_known:
            return inf
        return OVERDUE_SECONDS + OVERDUE_FACTOR * self.craft_seconds(attacker)


class Turns:
    """The attackers: what each owes, what it is charged for, and how fast it is.

    A ticket is owed until it is returned, and charged until it is both returned and consumed. An
    attacker is late from when training had to go on without it until it returns a batch.

    No attacker is charged more than `outstanding` tickets. Where that is None the credit goes by
    speed: while the slowest crafts one ticket a faster one crafts several, none of which is
    consumed before the slow one's.
    """

    def __init__(
        self,
        attackers: Sequence[int],
        *,
        outstanding: int | None,
        window: int,
        trainer_crafts: bool,
    ) -> None:
        self.pace = Pace()
        self.num_charged = 0
        self._outstanding = outstanding
        self._window = window
        self._trainer_crafts = trainer_crafts
        self.owed: dict[int, set[int]] = {attacker: set() for attacker in attackers}
        self.charged: dict[int, set[int]] = {attacker: set() for attacker in attackers}
        self._newest: dict[int, int] = dict.fromkeys(attackers, -1)
        self.late: set[int] = set()
        self._trials: dict[int, int] = {}
        self._retry_at: dict[int, int] = dict.fromkeys(attackers, 0)

    def granted(self, ticket: int, attacker: int) -> None:
        """Book a ticket as owed by `attacker` and charged to it."""
        self.owed[attacker].add(ticket)
        # One that it could not read is charged to it already.
        self.num_charged += ticket not in self.charged[attacker]
        self.charged[attacker].add(ticket)
        self._newest[attacker] = max(ticket, self._newest[attacker])

    def tried(self, ticket: int, attacker: int) -> None:
        """Book that `attacker` is tried on a copy of a ticket."""
        self.granted(ticket, attacker)
        self._trials[attacker] = ticket

    def delivered(self, ticket: int, attacker: int) -> None:
        """Book that `attacker` returned a batch: it works."""
        self.owed[attacker].remove(ticket)
        self.late.discard(attacker)

    def gave_up(self, ticket: int, attacker: int, step: int) -> None:
        """Book that training reached `step` without the batch that `attacker` owed."""
        self.owed[attacker].remove(ticket)
        if self._trials.get(attacker) == ticket:
            self._retry_at[attacker] = step + RETRY_TICKETS

    def consumed(self, ticket: int) -> None:
        """Give the credit for a consumed ticket back to all that have returned it."""
        for attacker in self.owed:
            self.release(ticket, attacker)

    def release(self, ticket: int, attacker: int) -> None:
        """Give the credit for a consumed ticket back if `attacker` has returned it."""
        if ticket in self.charged[attacker] and ticket not in self.owed[attacker]:
            self.charged[attacker].remove(ticket)
            self.num_charged -= 1

    def remove(self, attacker: int) -> list[int]:
        """Strike an attacker off; returns what it owed, sorted."""
        self.late.discard(attacker)
        self._trials.pop(attacker, None)
        self.num_charged -= len(self.charged.pop(attacker))
        del self._newest[attacker], self._retry_at[attacker]
        return sorted(self.owed.pop(attacker))

    def falls_short(self) -> bool:
        """Whether all that count craft clearly fewer batches than training takes."""
        return self._falls_short(self._rate(self.team()))

    def has_slack(self) -> bool:
        """Whether all that count could craft more batches than training takes."""
        return self._rate(self.team()) * self.pace.train_seconds > 1.0

    def team(self) -> list[int]:
        """Those that training can count on, the fastest first.

        Left out are the late, and whoever takes longer for one ticket than the faster ones and the
        trainer take for a whole window of them, unless it is nearly as fast as the fastest.
        """
        order = sorted((self.pace.craft_seconds(a), a) for a in self.owed if a not in self.late)
        paces = [seconds for seconds, _ in order[:1]]
        if self._trainer_crafts:
            paces.append(self.pace.craft_seconds(TRAINER))
        worth_waiting = WORTH_WAITING * min(paces, default=0.0)
        team, rate = list[int](), 0.0
        for seconds, attacker in order:
            too_long = seconds > worth_waiting
            if too_long and seconds > self._window * self._seconds_per_ticket(rate):
                break
            team.append(attacker)
            rate += 1 / seconds
        return team

    def whose_turn(self, ticket: int, step: int) -> int | None:
        """Who is to craft `ticket` when training is at `step`.

        None where nobody has credit left, or where those that have would be too late and one that
        has not will be sooner.
        """
        if self.num_charged >= self._window:
            return None  # most looks end here, before the team's
        team = self.team()
        rate = self._rate(team)
        if self.num_charged >= self._room(rate):
            return None
        per_ticket = self._seconds_per_ticket(rate)
        has_credit = self._with_credit(team)
        until = {
            a: self._seconds_until_crafted(a, step, per_ticket, a in has_credit)
            for a in team
            # Or it gets some when the tickets before the next are consumed.
            if (a in has_credit or max(self.charged[a]) >= step) and ticket not in self.owed[a]
        }
        needed = (ticket - step) * per_ticket
        latest = max(needed, WORTH_WAITING * min(until.values(), default=0.0))
        able = [a for a in until if a in has_credit and until[a] <= latest]
        turns = {a: self._turn(a, step, per_ticket) for a in able}
        return min(able, key=lambda a: (turns[a], a), default=None)

    def whose_trial(self, step: int) -> int | None:
        """An attacker outside the team that is to show whether it is fast enough now."""
        if self.num_charged >= self._window:
            return None
        idle = {a for a in self.owed if not self.charged[a] and self._retry_at[a] <= step}
        return min(idle.difference(self.team()), default=None) if idle else None

    def _room(self, rate: float) -> int:
        """How many tickets attackers may have: a trainer that crafts, too, needs some for itself.

        With the whole window on the way to it, it would have nothing to craft while it waits.
        """
        if not rate or not self._trainer_crafts or not self._falls_short(rate):
            return self._window
        share = rate * self._seconds_per_ticket(rate)
        return max(1, int(ROOM_FOR_ATTACKERS * self._window * share))

    def _rate(self, team: Sequence[int]) -> float:
        """Batches per second of `team`; 0 before anything was measured."""
        return sum(1 / self.pace.craft_seconds(a) for a in team) if self.pace.is_known else 0.0

    def _falls_short(self, rate: float) -> bool:
        if not self.owed or not self.pace.train_seconds:
            return True
        return self.pace.is_known and rate * self.pace.train_seconds < SHORTFALL

    def _seconds_per_ticket(self, rate: float) -> float:
        """What a ticket takes at best where attackers craft so many batches per second."""
        train, own = self.pace.train_seconds, self.pace.craft_seconds(TRAINER)
        if self._trainer_crafts and self._falls_short(rate):
            return (train + own) / (1 + rate * own)
        return max(train, 1 / rate) if rate else own

    def _with_credit(self, team: Sequence[int]) -> set[int]:
        """Those of a team that may be charged with one more ticket."""
        credit = dict.fromkeys(team, self._outstanding or USUAL_CREDIT)
        if self._outstanding is None:
            settled = {a: self.pace.craft_seconds(a) for a in team if self.pace.is_settled(a)}
            longest = USUAL_CREDIT * max(settled.values(), default=0.0)
            credit |= {a: round(longest / seconds) for a, seconds in settled.items()}
        return {a for a in team if len(self.charged[a]) < credit[a]}

    def _seconds_until_crafted(
        self, attacker: int, step: int, seconds_per_ticket: float, has_credit: bool
    ) -> float:
        """Estimate of when it would have crafted one ticket more, after all that it owes."""
        one = self.pace.craft_seconds(attacker)
        free_in = len(self.owed[attacker]) * one
        if not has_credit:
            oldest = min(self.charged[attacker])
            free_in = max(free_in, (oldest - step) * seconds_per_ticket)
        return free_in + one

    def _turn(self, attacker: int, step: int, seconds_per_ticket: float) -> float:
        """When it would be done with one ticket more if it crafts each just when it is needed."""
        ahead = max(0, self._newest[attacker] - step)
        return ahead * seconds_per_ticket + self.pace.craft_seconds(attacker)
