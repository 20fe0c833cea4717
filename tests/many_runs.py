"""A program for `mpirun`: the runs of a plan, in rounds, side by side on the ranks of one job."""

import json
import os
import platform
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from mpiadv.process.loading import loading

with loading():
    from end_to_end import Start, settled
    from small_models import PAUSES

    from mpiadv.comm.library import MPI
    from mpiadv.comm.mpi_world import MpiWorld
    from mpiadv.comm.shared_memory import DISABLE_SHARING
    from mpiadv.session.recorder import Recorder
    from mpiadv.session.run import run


def main(plan: Path) -> None:
    """Make every start of the plan; `RUN.codes` beside each run tells its ranks' exit codes."""
    everyone = MpiWorld()
    codes = defaultdict[str, list[list[int]]](list)
    for starts in json.loads(plan.read_text()):
        for folder, told in _make_round(everyone, [Start(**start) for start in starts]):
            codes[folder].append(told)
    if everyone.rank == 0:
        for folder, told in codes.items():
            (plan.parent / f"{folder}.codes").write_text(json.dumps(told))


def _make_round(everyone: MpiWorld, starts: list[Start]) -> list[tuple[str, list[int]]]:
    owners = [number for number, start in enumerate(starts) for _ in range(start.ranks)]
    number = owners[everyone.rank] if everyone.rank < len(owners) else MPI.UNDEFINED
    comm = MPI.COMM_WORLD.Split(number, everyone.rank)
    code = ""
    if comm != MPI.COMM_NULL:
        with _on_its_host(starts[number], comm.rank):
            world = MpiWorld(comm)
            world.meet()
            code = str(_run(world, starts[number], os.path.dirname(sys.argv[1])))
        comm.Free()
    told = everyone.gather(code)  # also waits, asleep, for the round's other runs
    return [
        (start.folder, [int(told[r]) for r, owner in enumerate(owners) if owner == n])
        for n, start in enumerate(starts)
    ]


def _run(world: MpiWorld, start: Start, parent: str) -> int:
    is_slow = {"straggler": world.rank == 1}.get(start.pauses, world.rank > 0)
    os.environ[PAUSES] = start.pauses if is_slow else ""
    os.environ[DISABLE_SHARING] = str(int(not start.shares_memory))
    with _interruption(start.stop_after) as interruption:
        return run(world, [*settled(start.argv), f"output={parent}/{start.folder}"], interruption)


@contextmanager
def _on_its_host(start: Start, rank: int) -> Iterator[None]:
    """Meanwhile this rank takes itself to be on the host that its run says."""
    name = f"host{start.hosts[rank]}" if start.hosts else platform.node()
    with mock.patch.object(platform, "node", lambda: name):
        yield


@contextmanager
def _interruption(after: int | None) -> Iterator[Any]:
    """What an `Interruption` is to a run, but requested by a number of steps done."""
    interruption = SimpleNamespace(requested=False, close=lambda: None)
    on_step = Recorder.on_step

    def watch(self: Recorder, record: Any) -> None:
        on_step(self, record)
        interruption.requested |= record.step + 1 == after

    with mock.patch.object(Recorder, "on_step", watch):
        yield interruption


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
    MPI.Finalize()
    sys.stdout.flush()
    # Taking torch down in order would cost each rank more than a second.
    os._exit(0)
