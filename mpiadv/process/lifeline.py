"""Ends what a process of ours has started when that process is gone. Knows processes, no MPI.

Whoever starts something puts itself into its environment by `with_starter`; what is started calls
`end_with_the_starter`. A starter that is killed by -9 cannot end anything itself. It is watched on
its own host only: elsewhere the ranks hear of its end by `mpirun`.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpiadv.process.exit_codes import EXIT_RESUME_ME

STARTER = "MPIADV_STARTER"
"""Names the process that is watched: host, process id, and when it began."""

GRACE_SECONDS = 5.0
"""From asking to end in order, to ending."""

LOOK_SECONDS = 1.0

_PR_SET_PDEATHSIG = 1


def with_starter(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of what this process is about to start."""
    return {**environ, STARTER: f"{socket.gethostname()} {os.getpid()} {_began(os.getpid())}"}


def end_with_the_starter(*, and_with_parent: bool = False) -> None:
    """From now on end once the starter is gone: asked by SIGTERM first, twice, then at once.

    A rank that no mpiadv has started ends with its parent, which is `mpirun` or its daemon.
    """
    watched = [_starter()]
    if and_with_parent:
        watched.append((os.getppid(), _began(os.getppid())))
    # What cannot be seen from the first lives in another container, or is known to have died.
    seen = [(number, began) for number, began in watched if began and _began(number) == began]
    if seen:
        threading.Thread(target=_watch, args=(seen,), name="lifeline", daemon=True).start()


def _starter() -> tuple[int, str]:
    """Process id, and when it began; empty where it is not to be seen from here."""
    host, _, process = os.environ.get(STARTER, "").partition(" ")
    number, _, began = process.partition(" ")
    is_here = host == socket.gethostname() and number.isdecimal()
    return (int(number), began) if is_here else (0, "")


def hear_of_the_parents_death(signal_number: int) -> None:
    """Have the kernel send this process a signal when the one that forked it is gone.

    It holds across `exec`, so it reaches an `mpirun`, which tells its ranks on every host.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number)


_LIBC = ctypes.CDLL(None)


def _watch(processes: Sequence[tuple[int, str]]) -> None:
    while all(_began(number) == began for number, began in processes):
        time.sleep(LOOK_SECONDS)
    for _ in range(2):
        # The second is for a launcher, which then ends its ranks at once.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS / 2)
    os._exit(EXIT_RESUME_ME)


def _began(process: int) -> str:
    """When a process began, in ticks of the kernel; empty when it is gone."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return ""
    # After the name, which may hold anything: state, and the other fields from the fourth on.
    state, *others = stat.rpartition(b")")[2].split()
    return "" if state in (b"Z", b"X") else others[18].decode()
