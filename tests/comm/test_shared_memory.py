"""Memory that ranks of one host share: who finds it, what they see, and what is left of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_records import version_header
from mpi_runner import REPOSITORY

from mpiadv.comm.links import no_device
from mpiadv.comm.shared_memory import SharedMemory, SharedSlots, attach

PARAMETER_BYTES = 10_000
NUM_SLOTS = 3
ROOM = SharedSlots.room_for(NUM_SLOTS, PARAMETER_BYTES)

READER = f"""
import sys
from mpiadv.comm.links import no_device
from mpiadv.comm.shared_memory import SharedSlots, attach

slots = SharedSlots(attach(sys.argv[1]), {PARAMETER_BYTES}, no_device)
print("there", flush=True)
sys.stdin.readline()
print(*(int(slots[place].values.sum()) for place in (1, 2, 3)), slots[2].version)
"""


def changed(place: int, value: str) -> Callable[[str], str]:
    """An address with another word at a place, the host's name taken as one."""

    def change(address: str) -> str:
        words = address.split(" ", 4)
        words[place] = value
        return " ".join(words)

    return change


ELSEWHERE = {
    "a process that is gone": changed(0, "999999999"),
    "no file": changed(1, "99999"),
    "another memory of the same size": changed(3, "00" * 16),
    "larger than it is": changed(2, str(ROOM + 2**20)),
    "another host": changed(4, "elsewhere"),
}


def test_other_process_sees_what_is_written_after_it_came() -> None:
    memory = SharedMemory(ROOM)
    slots = SharedSlots(memory.content, PARAMETER_BYTES, no_device)
    with subprocess.Popen(
        [sys.executable, "-c", READER, memory.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as reader:
        assert reader.stdout is not None
        with memory:
            assert reader.stdout.readline() == "there\n"
        for place in (1, 2, 3):
            slots[place].values[:] = place
        slots[2].header = version_header(7)
        told, _ = reader.communicate("\n", timeout=60)
    assert told.split() == ["10000", "20000", "30000", "7"]


@pytest.mark.parametrize("change", ELSEWHERE.values(), ids=ELSEWHERE)
def test_memory_that_is_not_there_is_not_found(change: Callable[[str], str]) -> None:
    with SharedMemory(ROOM) as memory:
        assert attach(memory.address) is not None
        assert attach(change(memory.address)) is None
    assert attach(memory.address) is None


def test_slots_share_no_byte_and_begin_with_a_page_of_their_own() -> None:
    pinned: list[int] = []
    with SharedMemory(ROOM) as memory:
        pass
    slots = SharedSlots(memory.content, PARAMETER_BYTES, lambda part: pinned.append(part.size))
    for place in range(1, NUM_SLOTS + 1):
        slots[place].buffer[:] = place
        assert slots[place].buffer.ctypes.data % os.sysconf("SC_PAGE_SIZE") == 0
        assert slots[place].place == place
    assert all((slots[place].buffer == place).all() for place in range(1, NUM_SLOTS + 1))
    assert pinned == [slots[1].buffer.size] * NUM_SLOTS


def test_nothing_is_left_once_nobody_has_the_memory() -> None:
    def held() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return len(list(Path("/proc/self/fd").iterdir())), maps.count("memfd:mpiadv")

    before = held()
    for _ in range(20):
        with SharedMemory(ROOM) as memory:
            found = attach(memory.address)
        assert found is not None and found.size == memory.content.size
        del memory, found
    with pytest.raises(OSError):
        SharedMemory(2**62)  # more than a process can map
    assert held() == before
