"""What launchers of ranks tell them, and ranks that their MPI does not know of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpi_runner import finished, started

from mpiadv.process.errors import UserError
from mpiadv.process.launched import place_told, require_known_to_mpi, require_same_mpi

OPEN_MPI, OLD_OPEN_MPI, MPICH = "Open MPI v5.0.11", "Open MPI v4.1.6", "MPICH Version: 5.0.2"

BY_OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}
BY_MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2"}
BY_SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "8"}

PLACES = {
    "alone": ({}, None),
    "open_mpi": (BY_OPEN_MPI, (1, 2)),
    "mpich": (BY_MPICH, (1, 2)),
    "srun": (BY_SRUN, (1, 2)),
    "allocation": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
    "one_rank_by_mpirun_in_a_step": (
        {**BY_SRUN, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        (0, 1),
    ),
    "no_number": ({"PMI_RANK": "x", "PMI_SIZE": "2"}, None),
    "size_alone": ({"OMPI_COMM_WORLD_SIZE": "2"}, (0, 2)),
}


@pytest.mark.parametrize(("environ", "place"), PLACES.values(), ids=PLACES.keys())
def test_place_among_ranks_is_what_the_nearest_launcher_has_told(
    environ: dict[str, str], place: tuple[int, int] | None
) -> None:
    assert place_told(environ) == place


STRANGERS = {
    "mpich_by_open_mpi": (BY_OPEN_MPI, MPICH, True),
    "open_mpi_by_mpich": (BY_MPICH, OPEN_MPI, True),
    "older_open_mpi_may_speak_pmi": (BY_MPICH, OLD_OPEN_MPI, False),
    "open_mpi_by_srun_with_pmix": ({**BY_MPICH, "PMIX_RANK": "1"}, OPEN_MPI, False),
    "open_mpi": (BY_OPEN_MPI, OPEN_MPI, False),
    "mpich": (BY_MPICH, MPICH, False),
    "alone": ({}, MPICH, False),
}


@pytest.mark.parametrize(
    ("environ", "library", "is_refused"), STRANGERS.values(), ids=STRANGERS.keys()
)
def test_launcher_that_mpi_cannot_start_under_is_refused_before(
    environ: dict[str, str], library: str, is_refused: bool
) -> None:
    if not is_refused:
        require_same_mpi(environ, library)
        return
    with pytest.raises(UserError, match=r"^2 processes were started by an mpirun that is not of "):
        require_same_mpi(environ, library)


@pytest.mark.parametrize(
    ("environ", "size", "line"),
    [
        pytest.param(BY_MPICH, 1, "2 processes .* not of the MPI .*: say mpiadv", id="mpirun"),
        pytest.param(BY_SRUN, 1, "srun has started 2 .*: say srun --mpi=pmix, or", id="srun"),
        pytest.param(BY_MPICH, 2, "", id="known"),
        pytest.param({**BY_OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, 1, "", id="one"),
        pytest.param({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1, "", id="by_hand"),
        pytest.param({}, 1, "", id="alone"),
    ],
)
def test_processes_of_whom_each_is_alone_to_mpi_are_refused(
    environ: dict[str, str], size: int, line: str
) -> None:
    if not line:
        require_known_to_mpi(environ, OPEN_MPI, size)
        return
    with pytest.raises(UserError, match=line):
        require_known_to_mpi(environ, OPEN_MPI, size)


@pytest.mark.usefixtures("needs_mpirun")
def test_rank_that_mpi_does_not_know_of_is_refused_and_touches_no_folder(tmp_path: Path) -> None:
    told = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    line = [sys.executable, "-m", "mpiadv.run", "output=run"]
    with started(line, cwd=tmp_path, env=told) as process:
        completed = finished(process, timeout=60)
    assert completed.returncode == 2
    assert completed.stderr.startswith("mpiadv: error: srun has started 2 processes, ")
    assert completed.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_missing_mpi_is_one_line_on_several_ranks(tmp_path: Path) -> None:
    env = {**os.environ, **BY_MPICH, "MPI4PY_LIBMPI": str(tmp_path / "none.so")}
    for rank in ("0", "1"):
        completed = subprocess.run(
            [sys.executable, "-m", "mpiadv.run"],
            env={**env, "PMI_RANK": rank},
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 2
        assert completed.stderr.count("\n") == (rank == "0")
