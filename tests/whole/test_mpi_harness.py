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
        "*test_it on 3 ranks hung: not finished after 4 s*",
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
    pytester.makeconftest((HERE / "conftest.py").read_text())
    seconds = 4 if "sleep" in body else 60
    pytester.makepyfile(test_inner=TEST_FILE.format(body=body, seconds=seconds))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
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
