"""What the environment tells of whoever started this process. Knows no MPI.

Each launcher of ranks tells a rank its number and how many there are, before MPI is even loaded.
"""

from collections.abc import Mapping

_TOLD = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    # Of the step, so of what one srun started: SLURM_NTASKS is the whole allocation's, also for a
    # process that is started in it by hand.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""Variables of rank and size. A launcher may itself run in a step of Slurm, so that comes last."""


def place_told(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Rank and number of ranks that a launcher has given this process; None without a launcher."""
    for rank, size in _TOLD:
        if environ.get(rank, "").isdecimal() and environ.get(size, "").isdecimal():
            return int(environ[rank]), int(environ[size])
    return None


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether a launcher has started other processes beside this one."""
    place = place_told(environ)
    return place is not None and place[1] > 1
