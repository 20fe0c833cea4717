"""Which version goes to whom, and when: pure book-keeping. Knows no MPI and no buffers."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SlotT = TypeVar("SlotT")
"""Where a version lies, or whatever stands for it."""

HEAD_START_SECONDS = 0.05
"""Longest wait of the other attackers for those that get a version first: a rank that does not take
its own holds up nobody."""

LONGEST_QUEUE = 4
"""Versions on their way to one attacker: one that takes none keeps no more buffers than these, and
those that it reads in place."""


@dataclass(kw_only=True, eq=False)
class Sending(Generic[SlotT]):
    """A version and whom it goes to, `first` ahead of the others.

    `unsent`: who still has to be sent it; `untaken`: who was, and still has to take it. Those in
    `in_place` are only told of it, and read it where it lies: `readers` until they release it.
    """

    slot: SlotT
    first: frozenset[int]
    unsent: set[int]
    in_place: frozenset[int] = frozenset()
    untaken: set[int] = field(default_factory=set)
    readers: set[int] = field(default_factory=set)
    began: float = 0.0

    @property
    def is_over(self) -> bool:
        return not self.unsent and not self.untaken and not self.readers

    def in_order(self, attackers: Iterable[int]) -> list[int]:
        """Those that get it first ahead of the others."""
        return sorted(attackers, key=lambda attacker: (attacker not in self.first, attacker))

    def may_go_to(self, attacker: int, now: float) -> bool:
        """Whether nobody who gets it first stands before this attacker."""
        if attacker in self.first or not self.first & (self.unsent | self.untaken):
            return True
        return now > self.began + HEAD_START_SECONDS


class Outbox(Generic[SlotT]):
    """The versions on their way: each attacker gets them in order, and a few at a time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._sendings: list[Sending[SlotT]] = []
        self._queued: Counter[int] = Counter()
        self._full: set[int] = set()

    def add(
        self,
        slot: SlotT,
        attackers: Iterable[int],
        first: Iterable[int],
        in_place: Iterable[int] = (),
    ) -> None:
        """Let a version go to these attackers; those `in_place` have to release it."""
        to = set(attackers)
        if to:
            self._sendings.append(
                Sending(
                    slot=slot,
                    first=frozenset(first) & to,
                    unsent=to,
                    in_place=frozenset(in_place) & to,
                    began=self._clock(),
                )
            )

    def withdraw(self, slot: SlotT) -> None:
        """A version is not needed any more: who was not sent it yet does without."""
        for sending in self._sendings:
            if sending.slot is slot:
                sending.unsent.clear()
        self._forget_finished()

    def due(self) -> list[tuple[Sending[SlotT], int]]:
        """What is to be sent now, to whom; it counts as sent."""
        now, held_up = self._clock(), set(self._full)
        due: list[tuple[Sending[SlotT], int]] = []
        for sending in self._sendings:
            for attacker in sending.in_order(sending.unsent - held_up):
                if sending.may_go_to(attacker, now):
                    self._sent(sending, attacker)
                    due.append((sending, attacker))
            held_up |= self._full | sending.unsent
        return due

    def taken(self, sending: Sending[SlotT], attacker: int) -> None:
        """An attacker has a version."""
        # That it died may have been seen before: then nobody waits for it any more.
        sending.untaken.discard(attacker)
        self._queued[attacker] -= 1
        self._full.discard(attacker)
        self._forget_finished()

    def released(self, attacker: int, slot: SlotT | None = None) -> None:
        """An attacker reads a version where it lies no more; without a slot: none of them."""
        for sending in self._sendings:
            if slot is None or sending.slot is slot:
                sending.readers.discard(attacker)
        self._forget_finished()

    def cut_off(self, attacker: int, *, is_dead: bool) -> None:
        """Nothing more goes to an attacker; one that is dead takes nothing that was sent either.

        What is written where it may still read spoils only batches that nobody takes.
        """
        self.released(attacker)
        for sending in self._sendings:
            sending.unsent.discard(attacker)
            if is_dead:
                sending.untaken.discard(attacker)
        self._forget_finished()

    def holds(self, slot: SlotT) -> bool:
        """Whether somebody has yet to get the version in this slot, or may still read it there."""
        return any(sending.slot is slot for sending in self._sendings)

    def num_due(self, attackers: Iterable[int]) -> int:
        """How many versions these attackers have yet to be sent."""
        there = set(attackers)
        return sum(len(sending.unsent & there) for sending in self._sendings)

    def _sent(self, sending: Sending[SlotT], attacker: int) -> None:
        sending.unsent.remove(attacker)
        sending.untaken.add(attacker)
        sending.readers |= {attacker} & sending.in_place
        self._queued[attacker] += 1
        if self._queued[attacker] >= LONGEST_QUEUE:
            self._full.add(attacker)

    def _forget_finished(self) -> None:
        self._sendings = [sending for sending in self._sendings if not sending.is_over]
