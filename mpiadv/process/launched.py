"""What the environment tells of whoever started this process. Loads no MPI.

Each launcher of ranks tells a rank its number and how many there are, before MPI is even loaded.
"""

import os
import re
from collections.abc import Mapping

from mpiadv.process.errors import UserError, tell_error
from mpiadv.process.exit_codes import EXIT_BAD_INPUT

_TOLD = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    # Of the step, so of what one srun started: SLURM_NTASKS is the whole allocation's, also for a
    # process that is started in it by hand.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""Variables of rank and size. A launcher may itself run in a step of Slurm, so that comes last."""


def place_told(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Rank and number of ranks that a launcher has given this process; None without a launcher.

    A size without a rank counts, too: whoever told it meant several processes.
    """
    for name, size in _TOLD:
        rank = environ.get(name, "0")
        if rank.isdecimal() and environ.get(size, "").isdecimal():
            return int(rank), int(environ[size])
    return None


def refused(error: UserError) -> int:
    """Say once, for processes that cannot speak to each other, why none begins; the exit code."""
    place = place_told(os.environ)
    if place is None or place[0] == 0:
        tell_error(str(error))
    return EXIT_BAD_INPUT


def require_same_mpi(environ: Mapping[str, str], library: str) -> None:
    """Refuse, before MPI starts, what it would end or complain of in many lines of its own.

    Raises:
        UserError: `library`, the MPI of this Python, is not the launcher's.
    """
    by_open_mpi, by_pmi = (environ.get(size, "1") for _, size in _TOLD[:2])
    if by_open_mpi != "1" and "MPICH" in library:
        raise UserError(_of_another_mpi(by_open_mpi, library))
    # Up to its version 4 Open MPI speaks PMI, too, as srun does.
    is_strange = by_pmi != "1" and by_open_mpi == "1" and "PMIX_RANK" not in environ
    if is_strange and re.match(r"Open MPI v(?:[5-9]|\d\d)", library):
        raise UserError(_of_another_mpi(by_pmi, library))


def require_known_to_mpi(environ: Mapping[str, str], library: str, size: int) -> None:
    """Refuse to be one of several processes of whom each is alone to its MPI.

    `library` is the MPI of this Python, and `size` the number of processes that it sees.

    Raises:
        UserError: the launcher is another MPI's.
    """
    place = place_told(environ)
    if size > 1 or place is None or place[1] == 1:
        return
    if any(names[1] in environ for names in _TOLD[:2]):
        raise UserError(_of_another_mpi(str(place[1]), library))
    raise UserError(
        f"srun has started {place[1]} processes, but the MPI of this Python ({library}) sees one: "
        f"say srun --mpi=pmix, or mpiadv launch -n {place[1]}"
    )


def _of_another_mpi(size: str, library: str) -> str:
    return (
        f"{size} processes were started by an mpirun that is not of the MPI of this Python "
        f"({library}): say mpiadv launch -n {size}, or take that MPI's own mpirun"
    )


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether a launcher has started other processes beside this one."""
    place = place_told(environ)
    return place is not None and place[1] > 1
