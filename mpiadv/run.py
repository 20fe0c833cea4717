"""`python -m mpiadv.run`: one run, alone or on every rank that mpirun started. No logic."""

import sys

from mpiadv.commands.train import main
from mpiadv.process.streams import outlive_readers

if __name__ == "__main__":
    outlive_readers()
    sys.exit(main(sys.argv[1:]))
