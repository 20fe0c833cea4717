"""One rank's bench: the tickets that it crafts, and which attack step it may run next.

Knows no MPI, no torch and no clock.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import inf
from statistics import median

from mpiadv.contract.tickets import AttackSettings, StalenessRule

Versions = Mapping[int, AttackSettings]
"""The published versions a rank holds, and the attack settings each of them carries."""

SHARE_WORTH_WAITING = 0.75
"""Of a step, for a rank without time to spare. In simulations with 7 attackers for a demand of
7.4, half a step served short broadcasts best and a whole one long ones; this served both."""


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
        settings = self._tickets[ticket].settings
        assert settings is not None, f"ticket {ticket} has not begun"
        return settings

    def ran(self, step: AttackStep) -> None:
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
        """The ticket with its settings, once the version that carries them is there."""
        crafting = self._tickets[ticket]
        if crafting.settings is None:
            first = self._rule.first_version(ticket)
            if first not in versions:
                return None
            crafting.settings = versions[first]
            # Until a step says otherwise: where none is crafted, no version was used.
            crafting.first_version = crafting.last_version = self._rule.step_of(ticket)
        return crafting

    def _is_done(self, crafting: Crafting) -> bool:
        return crafting.steps_done >= self._rule.crafting_steps(_num_steps(crafting))

    def _is_urgent(self, crafting: Crafting, versions: Versions) -> bool:
        """Whether the next version is all it needs, and the trainer needs it right after."""
        required = self._required(crafting)
        is_next = required == max(versions) + self._rule.publish_every
        return is_next and self._rule.step_of(crafting.ticket) - required <= 1

    def _required(self, crafting: Crafting) -> int:
        return self._rule.version(crafting.ticket, crafting.steps_done, _num_steps(crafting))

    def _usable(self, crafting: Crafting, versions: Versions) -> int | None:
        required = self._required(crafting)
        if self._mode is StalenessMode.FIXED:
            return required if required in versions else None
        trained = self._rule.step_of(crafting.ticket)
        newest = max((v for v in versions if v <= trained), default=-1)
        return newest if newest >= required else None


def _num_steps(crafting: Crafting) -> int:
    assert crafting.settings is not None
    return crafting.settings.num_steps


class Rhythm:
    """When the next version is to be expected, from those that came; times are in seconds.

    Knows no clock: it is told the time.
    """

    def __init__(self) -> None:
        self._published: deque[float] = deque(maxlen=6)
        self._expected = inf

    def arrived(self, published: float, now: float) -> None:
        """Book the arrival of a version; `published` may be told by another clock than `now`."""
        self._published.append(published)
        gaps = [later - earlier for earlier, later in pairwise(self._published)]
        # The median, as an evaluation of the trainer is no part of the rhythm.
        self._expected = now + median(gaps) if gaps else inf

    def rewards_patience(self, step_seconds: float, now: float, *, patient: bool) -> bool:
        """Whether to wait for the next version, rather than begin an attack step of that length.

        A `patient` rank, which has time to spare, waits for a version that is due within the step.
        For another the wait must be shorter than the step by more, as it costs crafting time. A
        version that is late by more is not waited for.
        """
        worth_while = step_seconds if patient else SHARE_WORTH_WAITING * step_seconds
        return abs(self._expected - now) < worth_while
