"""Memory that ranks of one host share: what one writes there, the others read in place.

It has no name in any file system, so nothing is left behind, however the ranks end. Knows no MPI.
"""

import mmap
import os
import platform
import secrets
from functools import partial

import numpy as np

from mpiadv.comm.links import ParameterSlot, Pin, parameter_slot_bytes
from mpiadv.comm.messages import Bytes

DISABLE_SHARING = "MPIADV_SHM_DISABLE"
"""Set to 1 for rank 0: versions travel as messages within a host, too."""

_TOKEN_BYTES = 16


class SharedMemory:
    """`content`, zeroed at first and page-aligned; pages take room only once they are used.

    `address` tells another process of the host where it is, until `close`.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, num_bytes: int) -> None:
        self._descriptor = os.memfd_create("mpiadv")
        size = num_bytes + _TOKEN_BYTES
        os.ftruncate(self._descriptor, size)
        mapped = _mapped(self._descriptor, size)
        # Tells this memory from that of a process of the same number in another container.
        token = secrets.token_bytes(_TOKEN_BYTES)
        mapped[num_bytes:] = np.frombuffer(token, np.uint8)
        self.content = mapped[:num_bytes]
        place = f"{os.getpid()} {self._descriptor} {size}"
        self.address = f"{place} {token.hex()} {platform.node()}"

    def close(self) -> None:
        """Be found by nobody else; who has found the memory keeps it."""
        os.close(self._descriptor)


def attach(address: str) -> Bytes | None:
    """The memory at this address; None where it is another host's, or out of reach."""
    pid, descriptor, size, token, host = address.split(" ", 4)
    if host != platform.node():
        return None
    try:
        found = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
    except OSError:
        return None
    try:
        mapped = _mapped(found, int(size))
    except (OSError, ValueError):
        return None
    finally:
        os.close(found)
    is_it = mapped[-_TOKEN_BYTES:].tobytes().hex() == token
    return mapped[:-_TOKEN_BYTES] if is_it else None


def _mapped(descriptor: int, size: int) -> Bytes:
    return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)


class SharedSlots:
    """Versions in shared memory, by their place: 1, 2, ... up to as many as it has room for."""

    def __init__(self, memory: Bytes, parameter_bytes: int, pin: Pin) -> None:
        self._memory = memory
        self._parameter_bytes = parameter_bytes
        self._pin = pin
        self._slots: dict[int, ParameterSlot] = {}

    @staticmethod
    def room_for(num_slots: int, parameter_bytes: int) -> int:
        """How many bytes so many versions take."""
        return num_slots * _stride(parameter_bytes)

    def __getitem__(self, place: int) -> ParameterSlot:
        if place not in self._slots:
            self._slots[place] = ParameterSlot(
                self._parameter_bytes, partial(self._part, place), place
            )
        return self._slots[place]

    def _part(self, place: int, num_bytes: int) -> Bytes:
        start = (place - 1) * _stride(self._parameter_bytes)
        part = self._memory[start : start + num_bytes]
        self._pin(part)
        return part


def _stride(parameter_bytes: int) -> int:
    # Whole pages: memory is pinned by the page, and none of them twice.
    return -(-parameter_slot_bytes(parameter_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
