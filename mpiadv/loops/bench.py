"""One rank's bench: its tickets, the versions it holds, and the work on them, a step at a time.

The same for an attacker and for the trainer's own tickets. Knows no MPI and no torch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from mpiadv.comm.links import ParameterSlot
from mpiadv.comm.messages import BatchHeader, Fate
from mpiadv.contract.accounts import NOTHING, CraftReport, Probed, Provenance
from mpiadv.contract.craft_queue import AttackStep, Crafting, CraftQueue
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.loops.idleness import Idleness
from mpiadv.work.protocols import BatchT, Crafter, Work

LONGEST_READ_SECONDS = 0.5
"""For so long a rank stays with a ticket whose images are being read, before it looks up."""

SLOW_IMAGES_SECONDS = 5.0
"""Images that take longer to read are told of."""


class VersionRing:
    """The published versions that a live ticket may still need."""

    def __init__(self, rule: StalenessRule) -> None:
        self.rule = rule
        self._slots: dict[int, ParameterSlot] = {}
        self.settings: dict[int, AttackSettings] = {}

    def __getitem__(self, version: int) -> ParameterSlot:
        return self._slots[version]

    def add(self, slot: ParameterSlot) -> None:
        header = slot.header
        self._slots[header.version] = slot
        self.settings[header.version] = header.settings

    def evict(self, step: int) -> list[ParameterSlot]:
        """Let go of what no ticket from `step` on needs; returns the slots."""
        gone = self.rule.not_needed(self._slots, step)
        for version in gone:
            del self.settings[version]
        return [self._slots.pop(version) for version in gone]


@dataclass(frozen=True, kw_only=True)
class Crafted(Generic[BatchT]):
    """A batch whose crafting steps are complete; `step` is to train on it."""

    crafting: Crafting
    step: int
    batch: BatchT
    report: CraftReport
    seconds: float

    def header(self, rank: int, idle: Idleness, probe: Probed = NOTHING) -> BatchHeader:
        """What `rank`, which crafted it after so much idleness, tells of it."""
        crafting = self.crafting
        assert crafting.settings is not None
        return BatchHeader(
            fate=Fate.CRAFTED,
            origin=Provenance(
                ticket=crafting.ticket,
                step=self.step,
                first_version=crafting.first_version,
                last_version=crafting.last_version,
                rank=rank,
                settings=crafting.settings,
            ),
            report=self.report,
            seconds=idle.beside(self.seconds),
            probe=probe,
        )


class Bench(Generic[BatchT]):
    """Runs the attack steps of the tickets in `queue`.

    `on_event(kind, text)` hears of "slow images": tickets whose images take long to read.
    """

    def __init__(
        self,
        queue: CraftQueue,
        ring: VersionRing,
        crafter: Crafter[BatchT],
        *,
        pump: Callable[[], None],
        on_event: Callable[[str, str], None] = lambda kind, text: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.queue = queue
        self._on_event = on_event
        self._told_slow = -1
        self.ring = ring
        self._crafter = crafter
        self.prefetch = crafter.prefetch
        self._pump = pump
        self._clock = clock
        self._seconds: dict[int, float] = {}
        self._begun: set[int] = set()

    def run(self, step: AttackStep) -> float:
        """Run one attack step, moving messages on while the device works; returns seconds.

        Nothing is run where the ticket's images take longer than a while to read: whoever called
        has its chance to do without them. Nor where training went on without the ticket meanwhile,
        and the version that it was to use has been let go.

        Raises:
            UserError, UnreadableError: as `Crafter.start`.
        """
        began = self._clock()
        ran = self._begin(step.ticket) and step.version in self.ring.settings
        if ran:
            self._crafter.run(step, self.ring[step.version])
            settle(self._crafter, self._pump)
        seconds = self._clock() - began
        # Another copy of the batch may have arrived meanwhile: then the ticket is gone.
        if step.ticket in self.queue:
            self._seconds[step.ticket] = self._seconds.get(step.ticket, 0.0) + seconds
            if ran:
                self.queue.ran(step)
            else:
                self._tell_slow(step.ticket)
        return seconds

    def hand_over(self, crafting: Crafting) -> Crafted[BatchT]:
        """The batch of a ticket that left the queue complete."""
        if crafting.ticket not in self._begun:
            assert crafting.settings is not None
            while not self._crafter.wait(crafting.ticket):
                self._pump()
            self._crafter.start(crafting.ticket, crafting.settings)
        self._begun.discard(crafting.ticket)
        batch, report = self._crafter.finish(crafting.ticket)
        seconds = self._seconds.pop(crafting.ticket, 0.0)
        step = self.ring.rule.step_of(crafting.ticket)
        return Crafted(crafting=crafting, step=step, batch=batch, report=report, seconds=seconds)

    def forget(self, ticket: int) -> None:
        """Give up a ticket that left the queue before it was complete."""
        self._seconds.pop(ticket, None)
        self._begun.discard(ticket)
        self._crafter.drop(ticket)

    def _tell_slow(self, ticket: int) -> None:
        """Say once for each ticket why nothing seems to happen."""
        waited = self._seconds[ticket]
        if waited > SLOW_IMAGES_SECONDS and ticket != self._told_slow:
            self._told_slow = ticket
            told = f"has waited {waited:.0f} s for its images: what cannot be read is tried again"
            number = self.ring.rule.number(ticket)
            self._on_event("slow images", f"ticket {number} {told}")

    def _begin(self, ticket: int) -> bool:
        """Whether the ticket has its images, after waiting for them for a while."""
        if ticket in self._begun:
            return True
        began = self._clock()
        while not self._crafter.wait(ticket):
            self._pump()
            if ticket not in self.queue or self._clock() - began > LONGEST_READ_SECONDS:
                return False
        self._crafter.start(ticket, self.queue.settings(ticket))
        self._begun.add(ticket)
        return True


def settle(work: Work, pump: Callable[[], None]) -> None:
    """Move messages on once, and then for as long as the device is busy."""
    pump()
    while work.busy():
        pump()
