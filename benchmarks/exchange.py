"""What the exchange between trainers costs: `python benchmarks/exchange.py`.

Sums of float32 over several ranks, by recursive halving in the order that mpiadv adds in, as a
training step uses it, and by `MPI.Allreduce` of the same bytes, which promises no order: turn about
in one run, with a barrier before each.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from mpi4py import MPI
from mpirun import mpirun

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes, aligned
from mpiadv.comm.mpi_world import MpiWorld
from mpiadv.comm.sums import Sums

WARM_UP = 3


def main() -> int:
    """Print the table; started under `mpirun`, measure a row of it."""
    parser = argparse.ArgumentParser(
        description="Measure sums over trainers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--values", type=int, nargs="+", default=[50_000, 3_300_000, 11_200_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure(options.values, options.repeats)
        return 0
    print(f"medians of {options.repeats}, on {len(os.sched_getaffinity(0))} cores\n")
    print("| trainers | values | sum, ms | Allreduce, ms | ratio | moved by each, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for ranks in options.ranks:
        words = ["--repeats", str(options.repeats), "--values", *map(str, options.values)]
        mpirun([sys.executable, "-m", "exchange", "--measure", *words], ranks=ranks)
    return 0


def _measure(sizes: list[int], repeats: int) -> None:
    """Rank 0 writes its rows to standard error, which the launcher passes on."""
    world = MpiWorld()
    sums = world.sums(plain_memory)
    for count in sizes:
        buffer = plain_memory(aligned(4 * count))
        ours, theirs = _seconds(sums, buffer, WARM_UP + repeats)
        if world.rank == 0:
            mine, other = (1000 * median(each[WARM_UP:]) for each in (ours, theirs))
            moved = 2 * 4 * count * (1 - 1 / world.size) / 1e6
            row = f"{mine:.2f} | {other:.2f} | {mine / other:.2f} | {moved:.1f}"
            print(f"| {world.size} | {count:,} | {row} |", file=sys.stderr, flush=True)


def _seconds(sums: Sums, buffer: Bytes, repeats: int) -> tuple[list[float], list[float]]:
    """Of both sums, turn about."""
    floats = buffer.view(np.float32)

    def add(start: int, theirs: Bytes) -> None:
        mine = buffer[start : start + theirs.size].view(np.float32)
        mine += theirs.view(np.float32)

    def run_ours() -> None:
        sums.begin(buffer, add)
        while not sums.poll():
            pass

    ours, theirs = list[float](), list[float]()
    for _ in range(repeats):
        floats[:] = 1.0
        ours.append(_timed(run_ours))
        theirs.append(_timed(lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, floats, MPI.SUM)))
    return ours, theirs


def _timed(run: Callable[[], None]) -> float:
    """Seconds until the slowest rank is through."""
    MPI.COMM_WORLD.Barrier()
    began = time.perf_counter()
    run()
    return float(MPI.COMM_WORLD.allreduce(time.perf_counter() - began, op=MPI.MAX))


if __name__ == "__main__":
    sys.exit(main())
