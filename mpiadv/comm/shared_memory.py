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

_NAME = "mpiadv"
_TOKEN_BYTES = 16


class SharedMemory:
    """`content`, zeroed at first and page-aligned; pages take room only once they are used.

    Within `with`, another process of the host finds it by `address`; who has found it keeps it.

    Raises:
        OSError: this Python or this system has no such memory.
    """

    def __init__(self, num_bytes: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this Python was built without memfd_create")
        self._descriptor = os.memfd_create(_NAME)
        try:
            size = num_bytes + _TOKEN_BYTES
            os.ftruncate(self._descriptor, size)
            mapped = _mapped(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            raise
        # Tells this memory from that of a process of the same number in another container.
        token = secrets.token_bytes(_TOKEN_BYTES)
        mapped[num_bytes:] = np.frombuffer(token, np.uint8)
        self.content = mapped[:num_bytes]
        place = f"{os.getpid()} {self._descriptor} {size}"
        self.address = f"{place} {token.hex()} {platform.node()}"

    def __enter__(self) -> "SharedMemory":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def attach(address: str) -> Bytes | None:
    """The memory at this address; None where it is another host's, or out of reach."""
    pid, descriptor, size, token, host = address.split(" ", 4)
    if host != platform.node():
        return None
    try:
        mapped = _opened(f"/proc/{pid}/fd/{descriptor}", int(size))
    except (OSError, ValueError):
        return None
    is_it = mapped[-_TOKEN_BYTES:].tobytes().hex() == token
    return mapped[:-_TOKEN_BYTES] if is_it else None


def _opened(path: str, size: int) -> Bytes:
    # Looked at first: a process of the same number elsewhere may have anything there.
    if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
        raise OSError(f"{path} is no such memory")
    descriptor = os.open(path, os.O_RDWR)
    try:
        return _mapped(descriptor, size)
    finally:
        os.close(descriptor)


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
