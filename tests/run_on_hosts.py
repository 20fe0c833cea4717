"""A program for `mpirun`: a run whose ranks take themselves to be on several hosts.

    mpirun -n 4 python tests/run_on_hosts.py 0011 CONFIG ...

The first word has a character for each rank, which says on which host it is.
"""

import os
import platform
import sys

from mpiadv.commands.train import main

if __name__ == "__main__":
    name = f"host{sys.argv[1][int(os.environ['OMPI_COMM_WORLD_RANK'])]}"
    platform.node = lambda: name
    sys.exit(main(sys.argv[2:]))
