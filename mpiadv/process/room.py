"""How many ranks a machine has room for. Knows no MPI."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mpiadv.process.errors import UserError
from mpiadv.process.words import counted

RANK_BYTES = 256 * 2**20
"""Less than the least that a rank takes: torch alone is 275 MiB of memory that none can share."""

RANKS_PER_CORE = 4
"""More than these only wait for each other."""

_ALLOCATIONS = ("PBS_JOBID", "LSB_JOBID")
"""Inside these the cluster counts the hosts, and `mpirun` what they have room for."""

_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def require_room(ranks: int, environ: Mapping[str, str]) -> None:
    """Refuse more ranks than fit into memory, and warn of many on few cores.

    Raises:
        UserError: it says how many fit.
    """
    if any(name in environ for name in _ALLOCATIONS):
        return
    hosts = int(environ.get("SLURM_JOB_NUM_NODES", "1"))
    most = max(1, hosts * memory_bytes() // RANK_BYTES)
    if ranks > most:
        raise UserError(
            f"launch: -n {ranks}: the {memory_bytes() / 2**30:.0f} GiB of memory here hold at most "
            f"{most // hosts} ranks{f', and {hosts} hosts {most}' if hosts > 1 else ''}"
        )
    cores = len(os.sched_getaffinity(0))
    if ranks > hosts * RANKS_PER_CORE * cores:
        told = f"{ranks} ranks on {counted(hosts * cores, 'core')}"
        print(f"warning: {told}: they will wait for each other", file=sys.stderr, flush=True)


def memory_bytes() -> int:
    """Memory of this machine, or of the container that we are in."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits()])


def _limits() -> Iterator[int]:
    for path in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # "max" is none
            yield int(path.read_text(encoding="ascii"))
