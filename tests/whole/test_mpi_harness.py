"""The harness of the MPI tests itself: what fails, hangs or vanishes on a rank fails here."""

import sys
import time
from pathlib import Path

import pytest
from mpi_runner import HERE, HungError, mpirun, pids_of, started_mpirun

CASES = {
    "passes": (
        "assert MPI.COMM_WORLD.size == 3",
        {"passed": 1},
        "",
    ),
    "fails_on_one_rank_while_the_others_wait": (
        "assert rank != 1, 'wrong on rank one'\n    MPI.COMM_WORLD.Barrier()",
        {"failed": 1},
        "*wrong on rank one*",
    ),
    "hangs": (
        "if rank == 0:\n        time.sleep(600)",
        {"failed": 1},
        "*test_it: * of 3 ranks passed; the job hung: not finished after 4 s*",
    ),
    "vanishes_on_one_rank": (
        "if rank == 2:\n        os._exit(0)",
        {"failed": 1},
        "*of 3 ranks passed*",
    ),
    "skips_on_one_rank": (
        "if rank == 1:\n        pytest.skip('no such device')",
        {"skipped": 1},
        "",
    ),
}

TEST_FILE = """
import os, time
import pytest

@pytest.mark.mpi(min_size=3)
@pytest.mark.mpi_deadline(seconds={seconds})
def test_it():
    from mpi4py import MPI
    rank = MPI.COMM_WORLD.rank
    {body}
"""


ONE_JOB = """
import os
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

def test_after_a_failure_gets_new_processes():
    assert not LEFT
"""


def _run_plain_pytest(pytester: pytest.Pytester, text: str) -> pytest.RunResult:
    pytester.makeconftest((HERE / "conftest.py").read_text())
    pytester.makepyfile(test_inner=text)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_tests_that_share_a_job_are_told_apart(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")
    result = _run_plain_pytest(pytester, ONE_JOB)
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        ["*test_fails failed on 1 of 2 ranks*", "*test_vanishes: 0 of 2 ranks passed; the job *"]
    )


@pytest.mark.parametrize(
    ("body", "counts", "line"), [pytest.param(*case, id=name) for name, case in CASES.items()]
)
def test_plain_pytest_reports_an_mpi_test_that(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    counts: dict[str, int],
    line: str,
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")
    seconds = 4 if "sleep" in body else 60
    result = _run_plain_pytest(pytester, TEST_FILE.format(body=body, seconds=seconds))
    result.assert_outcomes(**counts)
    if line:
        result.stdout.fnmatch_lines([line])


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
