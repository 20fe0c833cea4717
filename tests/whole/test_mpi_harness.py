"""The harness of the MPI tests itself: what fails, hangs or vanishes on a rank fails here."""

import sys
import time
from pathlib import Path

import pytest
from mpi_runner import HERE, HungError, mpirun, pids_of, started_mpirun

FILE = """
import os, time
import pytest
from mpi4py import MPI

pytestmark = pytest.mark.mpi(min_size=2)
LEFT = []

def test_leaves_a_message_that_nobody_takes():
    if MPI.COMM_WORLD.rank == 1:
        LEFT.append(MPI.COMM_WORLD.isend("left", 0))
    else:
        LEFT.append("a trace in this process")

def test_next_one_in_the_same_processes_does_not_receive_it():
    MPI.COMM_WORLD.Barrier()
    assert len(LEFT) == 1 and not MPI.COMM_WORLD.iprobe()

@pytest.mark.mpi(min_size=3)
def test_more_ranks_are_other_processes():
    assert MPI.COMM_WORLD.size == 3 and not LEFT

def test_fails():
    assert MPI.COMM_WORLD.rank != 1, "wrong on rank one"
    MPI.COMM_WORLD.Barrier()

def test_vanishes():
    os._exit(0)

def test_vanishes_on_one_rank():
    if MPI.COMM_WORLD.rank == 1:
        os._exit(0)

@pytest.mark.mpi_deadline(seconds=4)
def test_hangs():
    if MPI.COMM_WORLD.rank == 0:
        time.sleep(600)

def test_skips_on_one_rank():
    if MPI.COMM_WORLD.rank == 1:
        pytest.skip("no such device")

def test_after_a_failure_gets_new_processes():
    assert not LEFT
"""


TOLD = [
    "*test_fails failed on 1 of 2 ranks*",
    "*wrong on rank one*",
    "*test_vanishes: 0 of 2 ranks passed; the job *",
    "*test_vanishes_on_one_rank: 1 of 2 ranks passed; the job *",
    "*test_hangs: * of 2 ranks passed; the job hung: not finished after 4 s*",
    "SKIPPED * on 1 of 2 ranks: *no such device*",
]


def test_plain_pytest_tells_of_each_test_how_it_went_on_all_ranks(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")
    pytester.makeconftest((HERE / "conftest.py").read_text())
    pytester.makepyfile(test_inner=FILE)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(passed=4, failed=4, skipped=1)
    result.stdout.fnmatch_lines(TOLD)


def test_hung_command_is_named_and_every_rank_of_it_killed() -> None:
    sleep = ["python", "-c", "import time; print('here', flush=True); time.sleep(600)"]
    with pytest.raises(HungError, match=r"not finished after 3 s: .*time\.sleep\(600\)") as caught:
        mpirun(sleep, ranks=2, timeout=3)
    assert str(caught.value).count("here") == 2 + 1  # printed by both ranks, and in the command


def test_ranks_of_a_running_command_are_found_and_killed_at_the_end() -> None:
    with started_mpirun([sys.executable, "-c", "import time; time.sleep(600)"], ranks=2) as process:
        while len(pids_of(process)) < 2:
            time.sleep(0.1)
        pids = pids_of(process)
    assert sorted(pids) == [0, 1]
    assert pids_of(process) == {}


def test_exit_code_output_and_environment_come_back(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['GIVEN'], os.getcwd()); sys.exit(75)"
    completed = mpirun(
        ["python", "-c", program], ranks=1, timeout=60, env={"GIVEN": "here"}, cwd=tmp_path
    )
    assert completed.returncode == 75
    assert completed.stdout.strip() == f"here {tmp_path}"
