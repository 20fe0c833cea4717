"""The trainer's link where there is no attacker: it only keeps the buffers of versions."""

from collections.abc import Sequence

from mpiadv.comm.links import Allocate, BatchSlot, Delivery, ParameterSlot
from mpiadv.comm.messages import Farewell, Order


class LoneLink:
    """A `TrainerLink` to nobody. What concerns one attacker is never asked of it."""

    survives_losses = False

    def __init__(self, parameter_bytes: int, allocate: Allocate) -> None:
        self._parameter_bytes = parameter_bytes
        self._allocate = allocate
        self._free: list[ParameterSlot] = []

    @property
    def attackers(self) -> list[int]:
        return []

    readers = attackers

    def free_parameter_slot(self) -> ParameterSlot:
        if self._free:
            return self._free.pop()
        return ParameterSlot(self._parameter_bytes, self._allocate)

    def recycle(self, slot: ParameterSlot) -> None:
        self._free.append(slot)

    def broadcast(self, slot: ParameterSlot, *, first: Sequence[int] = ()) -> None:
        """There is nobody to send it to."""

    def poll(self) -> list[Delivery]:
        return []

    def call_last(self) -> None:
        """There is nobody to tell."""

    def keep_alive(self) -> None:
        """There is nobody to tell."""

    def take_lost(self) -> list[int]:
        return []

    def take_doubted(self) -> dict[int, str]:
        return {}

    def farewells(self) -> dict[int, Farewell]:
        return {}

    def pending(self) -> int:
        return 0

    def free(self) -> None:
        self._free.clear()

    def grant(self, attacker: int, order: Order) -> None:
        raise _nobody(attacker)

    def release(self, slot: BatchSlot) -> None:
        raise _nobody(None)

    def doubt(self, attacker: int, why: str) -> None:
        raise _nobody(attacker)

    def dismiss(self, attacker: int) -> None:
        raise _nobody(attacker)

    def silent_seconds(self, attacker: int) -> float:
        raise _nobody(attacker)

    def since_sign_of_life(self, attacker: int) -> float:
        raise _nobody(attacker)

    def name(self, attacker: int) -> str:
        raise _nobody(attacker)


def _nobody(attacker: int | None) -> AssertionError:
    return AssertionError(f"asked of attacker {attacker}, and there is none")
