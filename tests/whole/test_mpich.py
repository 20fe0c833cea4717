"""MPICH in the place of Open MPI: the same bits.

MPIADV_MPICH_PYTHON is the Python of an environment whose mpi4py loads MPICH and which has its
`mpirun` beside it, as `pip install mpich mpi4py` leaves them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end import HERE, TINY, Finished, first_difference, settled, staleness
from mpi_runner import finished, started

VARIABLE = "MPIADV_MPICH_PYTHON"


@pytest.fixture
def mpich() -> str:
    """A Python with MPICH; skips the test where none is given."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no Python with MPICH")
    script = "from mpi4py import MPI; print(MPI.Get_library_version())"
    python = os.environ[VARIABLE]
    assert "MPICH" in subprocess.check_output([python, "-c", script], text=True)
    return python


ON_HOSTS = (
    "data.name=bad_parts:images", "data.batch_size=4", "model.name=bad_parts:slow",
    "model.arguments={milliseconds: 0, ranks_per_host: 2}",
)  # fmt: skip
"""Ranks that take themselves to be on several hosts, of two ranks each."""


def run(folder: Path, *line: str, model: tuple[str, ...] = ()) -> Finished:
    rule = staleness(12, 3, 3, 1)
    argv = settled([*TINY, *model, *rule, "training.wire_dtype=float16", f"output={folder}"])
    with started([*line, *argv], cwd=HERE) as process:
        completed = finished(process, timeout=240)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return Finished(path=folder)


@pytest.mark.parametrize(("ranks", "model"), [("3", ()), ("5", ON_HOSTS)], ids=["host", "hosts"])
def test_run_under_mpich_has_the_hash_of_one_rank(
    mpich: str, tmp_path: Path, ranks: str, model: tuple[str, ...]
) -> None:
    alone = run(tmp_path / "alone", sys.executable, "-m", "mpiadv.cli", model=model)
    words = (mpich, "-m", "mpiadv.cli", "launch", "-n", ranks)
    under_mpich = run(tmp_path / "mpich", *words, model=model)
    assert first_difference(under_mpich, alone) == ""
    assert under_mpich.hash == alone.hash
