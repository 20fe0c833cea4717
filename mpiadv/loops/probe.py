"""Attacks a batch again on the parameters of its own step: what the staleness of a batch hides.

A probe is work beside the tickets, one at a time on each rank, and nothing waits for it. Knows no
MPI and no torch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from mpiadv.comm.links import ParameterSlot
from mpiadv.contract.accounts import NOTHING, Probed
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.loops.bench import VersionRing, settle
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.work.protocols import BatchT, Crafter, ProbeReport

NOBODY = 0
"""In place of a prober, as rank 0 trains."""


def is_probed(step: int, every: int) -> bool:
    """Whether a run that probes every so many steps, 0 meaning never, probes this one."""
    return every > 0 and step % every == 0


def prober_of(step: int, every: int, attackers: Sequence[int]) -> int:
    """The attacker whose turn it is to probe `step`; `NOBODY` where it is not probed by one."""
    if not attackers or not is_probed(step, every):
        return NOBODY
    return attackers[step // every % len(attackers)]


class Prober(Generic[BatchT]):
    """One rank's probes: one at a time, each until its result was taken.

    A probe reads the parameters of its step until it has a result, also after they left
    `ring`: a rank that probes holds one version more.
    """

    def __init__(
        self,
        ring: VersionRing,
        crafter: Crafter[BatchT],
        *,
        rank: int,
        pump: Callable[[], None],
        recycle: Callable[[ParameterSlot], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._ring = ring
        self._crafter = crafter
        self._rank = rank
        self._pump = pump
        self._recycle = recycle
        self._clock = clock
        self._slot: ParameterSlot | None = None
        self._steps: Iterator[ProbeReport | None] = iter(())
        self._seconds = 0.0
        self._came_before: int | None = None
        self._result = NOTHING

    @property
    def is_under_way(self) -> bool:
        return self._slot is not None

    def begin(self, step: int) -> None:
        """Begin to probe a step whose own version the ring holds, unless a probe is on hand.

        Nor on a rank so late that it was not sent the first version of its tickets any more.
        """
        ticket = step * self._ring.rule.team_tickets
        settings = self._ring.settings.get(self._ring.rule.first_version(ticket))
        if self.is_under_way or self._result is not NOTHING or settings is None:
            return
        self._slot, self._seconds = self._ring[step], 0.0
        self._steps = self._crafter.probe(ticket, settings, self._slot)

    def goes_before(self, step: AttackStep | None) -> bool:
        """Whether the probe goes on before `step`, None meaning that there is nothing to do.

        It does once before each ticket is begun. In simulations with 7 attackers for a demand of
        7.4, a probe every 20 tickets then cost 6 % of the speed, and 12 % where the steps of a
        probe followed each other: those hold up the last, urgent steps of the tickets.
        """
        if self._slot is None or step is None:
            return self._slot is not None
        return step.step == 0 and step.ticket != self._came_before

    def run(self, *, before: AttackStep | None = None) -> None:
        """Run one attack step, or the measurement, moving messages on while the device works."""
        assert self._slot is not None, "no probe is under way"
        began = self._clock()
        self._came_before = None if before is None else before.ticket
        try:
            report = next(self._steps)
        except (UserError, UnreadableError):
            self._let_end(self._slot)  # the ticket itself meets the same: nothing hangs on a probe
            return
        settle(self._crafter, self._pump)
        self._seconds += self._clock() - began
        if report is not None:
            self._result = Probed(
                step=self._slot.version,
                rank=self._rank,
                accuracy=report.accuracy,
                loss=report.loss,
                seconds=self._seconds,
            )
            self._let_end(self._slot)

    def take_result(self) -> Probed:
        """The result that nobody took yet; `NOTHING` while there is none."""
        result, self._result = self._result, NOTHING
        return result

    def let_go(self, slot: ParameterSlot) -> None:
        """Recycle a slot that has left the ring, as soon as no probe reads it."""
        if slot is not self._slot:
            self._recycle(slot)

    def _let_end(self, slot: ParameterSlot) -> None:
        self._slot, self._steps = None, iter(())
        if slot.version not in self._ring.settings:
            self._recycle(slot)
