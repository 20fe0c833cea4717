"""Puts versions of the parameters into memory, sends them out and holds them while they are needed.

Knows no MPI and no torch, and nothing of training: it is told what to publish and when.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpiadv.comm.links import ParameterSlot
from mpiadv.comm.messages import Bytes, Stop, VersionHeader
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.comm.waiting import Wait
from mpiadv.contract.tickets import AttackSettings
from mpiadv.loops.bench import VersionRing

Fill = Callable[[Bytes], Callable[[], bool]]
"""Begins to write the flat parameters; what it returns says whether they are complete."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published version: its attack settings and the flat parameters."""

    settings: AttackSettings
    values: Bytes

    def write(self, values: Bytes) -> Callable[[], bool]:
        values[:] = self.values
        return lambda: True


class Publisher:
    """Publishes through `link` into `ring`.

    `first(version)` says who gets a version ahead of the others, `prober(version)` who probes it,
    `pump` moves messages on, `wait` says how long it may take until a buffer is free, `missing` who
    is waited for then; `on_event(kind, text)` hears of a "publish stall": no buffer is free.
    """

    def __init__(
        self,
        link: TrainerLink,
        ring: VersionRing,
        *,
        first: Callable[[int], list[int]],
        prober: Callable[[int], int],
        pump: Callable[[], None],
        wait: Wait,
        missing: Callable[[], str],
        on_event: Callable[[str, str], None],
    ) -> None:
        self._link = link
        self._ring = ring
        self._first = first
        self._prober = prober
        self._pump = pump
        self._wait = wait
        self._missing = missing
        self._on_event = on_event
        self._incomplete: list[tuple[ParameterSlot, Callable[[], bool]]] = []

    @property
    def is_through(self) -> bool:
        """Whether every version has gone out."""
        return not self._incomplete

    def publish(
        self, version: int, settings: AttackSettings, fill: Fill, *, stop: Stop = Stop.NO
    ) -> None:
        """Begin to publish a version; it goes out, in order, once it is complete.

        Raises:
            DeadlineError: no buffer was given back in time.
        """
        slot = self._free_slot(version)
        slot.header = VersionHeader(
            version=version,
            settings=settings,
            stop=stop,
            published_at=time.time(),
            prober=self._prober(version),
        )
        self._incomplete.append((slot, fill(slot.values)))
        self.send_complete()

    def publish_restored(self, restored: dict[int, Published]) -> None:
        for version, published in sorted(restored.items()):
            self.publish(version, published.settings, published.write)

    def send_complete(self) -> None:
        while self._incomplete and self._incomplete[0][1]():
            slot, _ = self._incomplete.pop(0)
            self._link.broadcast(slot, first=self._first(slot.version))
            if slot.header.stop is Stop.NO:
                self._ring.add(slot)

    def held(self) -> dict[int, Published]:
        """The versions that a ticket may still need, for a checkpoint."""
        while self._incomplete:
            self._pump()
        return {
            version: Published(settings=settings, values=self._ring[version].values)
            for version, settings in sorted(self._ring.settings.items())
        }

    def evict(self, step: int) -> None:
        """Let go of the versions that no ticket from `step` on needs."""
        for slot in self._ring.evict(step):
            self._link.recycle(slot)

    def _free_slot(self, version: int) -> ParameterSlot:
        slot = self._link.free_parameter_slot()
        if slot is None:
            self._on_event("publish stall", f"step {version}: every buffer in use")
        while slot is None:
            self._pump()
            self._wait.pause(lambda: f"attackers to receive earlier parameters; {self._missing()}")
            slot = self._link.free_parameter_slot()
        self._wait.over()
        return slot
