"""The trainer's link where there is no attacker: it only keeps the buffers of versions."""

from typing import Any

from mpiadv.comm.links import Allocate, ParameterSlot


class LoneLink:
    """A `TrainerLink` to nobody. What concerns one attacker is never asked of it."""

    survives_losses = False

    def __init__(self, parameter_bytes: int, allocate: Allocate) -> None:
        self._parameter_bytes = parameter_bytes
        self._allocate = allocate
        self._free: list[ParameterSlot] = []
        self.attackers: list[int] = []
        self.readers: list[int] = []

    def free_parameter_slot(self) -> ParameterSlot:
        if self._free:
            return self._free.pop()
        return ParameterSlot(self._parameter_bytes, self._allocate)

    def recycle(self, slot: ParameterSlot) -> None:
        self._free.append(slot)

    def poll(self) -> list[Any]:
        return []

    take_lost = poll

    def farewells(self) -> dict[int, Any]:
        return {}

    take_doubted = farewells

    def pending(self) -> int:
        return 0

    def _tell_nobody(self, *message: Any, **how: Any) -> None:
        """There is nobody to send it to."""

    broadcast = call_last = keep_alive = free = _tell_nobody

    def _ask_nobody(self, *about: Any) -> Any:
        raise AssertionError(f"asked of an attacker, and there is none: {about}")

    grant = release = doubt = dismiss = silent_seconds = since_sign_of_life = name = _ask_nobody
