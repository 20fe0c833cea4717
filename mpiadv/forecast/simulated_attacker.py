"""An attacker in virtual time. Pure."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mpiadv.contract.craft_queue import AttackStep, Rhythm
from mpiadv.contract.tickets import AttackSettings
from mpiadv.contract.turns import Grant

if TYPE_CHECKING:
    from mpiadv.forecast.simulation import Simulation


class SimulatedAttacker:
    """Crafts what it is granted, and drops what was consumed without it."""

    def __init__(self, simulation: "Simulation", rank: int) -> None:
        self.busy_seconds = 0.0
        self._simulation = simulation
        self._clock = simulation.clock
        self._rank = rank
        self._queue = simulation.new_queue(rank)
        self.versions: dict[int, AttackSettings] = {}
        self._rhythm = Rhythm()
        self._patient = False
        self._step_seconds = 0.0
        self._is_busy = False

    def granted(self, grant: Grant) -> None:
        self._queue.add(grant.ticket)
        self._patient = grant.patient
        self._act()

    def received(self, version: int, published: float) -> None:
        self._rhythm.arrived(published, self._clock.now)
        self.versions[version] = self._simulation.settings_at(version)
        for old in self._simulation.job.rule.not_needed(self.versions, version):
            del self.versions[old]
        self._act()

    def _act(self) -> None:
        self._drop_consumed()
        if self._is_busy:
            return
        while (crafting := self._queue.pop_crafted(self.versions)) is not None:
            size = self._simulation.job.batch_bytes
            self._send(size, partial(self._simulation.trainer.arrived, crafting, self._rank))
        step = self._next_step()
        if step is not None:
            self._is_busy = True
            usual = self._simulation.job.attack_step_seconds
            self._step_seconds = self._simulation.took(usual, self._rank)
            self._clock.after(self._step_seconds, partial(self._ran, step))

    def _drop_consumed(self) -> None:
        newest = max(self.versions, default=0)
        for ticket in self._queue.tickets:
            if self._simulation.job.rule.step_of(ticket) < newest:
                self._queue.remove(ticket)
                self._send(0, partial(self._simulation.trainer.dropped, ticket, self._rank))

    def _next_step(self) -> AttackStep | None:
        """The next step; where only patience keeps it back, look again soon."""
        patient = self._rhythm.rewards_patience(
            self._step_seconds, self._clock.now, patient=self._patient
        )
        step = self._queue.next_step(self.versions, patient=patient)
        if step is None and patient and self._queue.next_step(self.versions) is not None:
            self._clock.after(self._step_seconds / 10, self._act)
        return step

    def _ran(self, step: AttackStep) -> None:
        self._is_busy = False
        self.busy_seconds += self._step_seconds
        if step.ticket in self._queue:
            self._queue.ran(step)
        self._act()

    def _send(self, num_bytes: int, event: Callable[[], None]) -> None:
        self._clock.at(
            self._simulation.transfers.batch(self._clock.now, num_bytes, self._rank), event
        )
