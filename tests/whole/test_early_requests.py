"""A request to end that comes while a run still starts: it ends in order, and goes on as any."""

import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest
from launching import HERE, hash_alone, train_alone, words_of
from mpi_runner import finished, started, started_mpirun

pytestmark = pytest.mark.usefixtures("needs_mpirun")

LINE = "interrupted at step 0, checkpoint saved: go on with --resume\n"


def _interrupted(
    process: subprocess.Popen[str], number: signal.Signals, *, ranks: int
) -> subprocess.CompletedProcess[str]:
    """What becomes of ranks that are asked to end once each of them has paused."""
    assert process.stdout is not None
    deadline = Timer(120, process.kill)
    deadline.start()
    for _ in range(ranks):
        assert process.stdout.readline() == "paused\n"
    deadline.cancel()
    process.send_signal(number)
    return finished(process, timeout=60)


MOMENTS = {
    "usr1_before_mpi": ("mpi4py.MPI", signal.SIGUSR1),
    "term_before_torch": ("torch", signal.SIGTERM),
    # Open MPI, loaded by then, takes the signal for itself unless it is taken back.
    "hang_up_after_mpi": ("mpiadv.loops.trainer", signal.SIGHUP),
}


@pytest.mark.parametrize(("module", "number"), MOMENTS.values(), ids=MOMENTS.keys())
def test_request_while_a_run_is_imported_ends_it_at_its_first_step(
    tmp_path: Path, module: str, number: signal.Signals
) -> None:
    line = [sys.executable, "-m", "paused_start", module, "mpiadv.run", *words_of(tmp_path / "run")]
    with started(line, cwd=HERE) as process:
        completed = _interrupted(process, number, ranks=1)
    assert (completed.returncode, completed.stderr) == (75, "")
    assert completed.stdout.endswith(LINE)
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-000000000.pt").exists()


def test_request_before_mpi_starts_reaches_all_ranks_and_costs_no_bits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = ["python", "-m", "paused_start", "mpi4py.MPI", "mpiadv.run", *words_of(run)]
    with started_mpirun(line, ranks=2, cwd=HERE) as process:
        completed = _interrupted(process, signal.SIGUSR1, ranks=2)
    assert completed.returncode == 75
    assert LINE in completed.stdout
    assert train_alone(words_of(run), resume=True) == hash_alone(tmp_path / "alone")
