"""One message from the trainer to all leaders at once. Knows no MPI."""

from collections.abc import Callable
from typing import Protocol

from mpiadv.comm.messages import Bytes


class Broadcasts(Protocol):
    """Broadcasts of the trainer to the leaders of the other hosts; all begin them in one order.

    None of them is any good once one has failed, be it that it had begun to arrive: its buffer is
    not to be used again.
    """

    @property
    def num_underway(self) -> int: ...

    @property
    def waited_seconds(self) -> float:
        """For how long none has got done though there is one; looked at often, else it is less."""

    def start(self, buffer: Bytes, complete: Callable[[], None]) -> None:
        """Begin one; calls `complete` when this rank's part of it is done."""

    def poll(self) -> bool:
        """Move them on; False from when one has failed."""

    def revoke(self) -> None:
        """Let them fail, on all ranks."""

    def free(self) -> None:
        """Let go of what they hold, when nothing is on its way."""
