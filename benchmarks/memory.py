"""How much memory the processes of emulated hosts hold. Knows no MPI."""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hosts import Host

PAUSE_SECONDS = 2.0
PROGRAM = b"mpiadv.emulation.rank"


@contextmanager
def watched(made: Sequence[Host]) -> Iterator[list[int]]:
    """The most bytes that the emulated ranks of each host held, complete when the block ends.

    Memory that several share counts once: each is charged its part of it (PSS).
    """
    most = [0] * len(made)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PAUSE_SECONDS):
            most[:] = map(max, most, _held(made))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def _held(made: Sequence[Host]) -> list[int]:
    held: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if PROGRAM in words and b"-n" not in words:  # mpirun has the words of both
                held[_host_of(int(process.name))] += _charged_bytes(process)
    return [held[_host_of(host.pid)] for host in made]


def _host_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/uts")


def _charged_bytes(process: Path) -> int:
    lines = (process / "smaps_rollup").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return 1024 * int(kibibytes)
