"""`python -m mpiadv`: the `mpiadv` command. No logic."""

import sys

from mpiadv.cli import main

if __name__ == "__main__":
    sys.exit(main())
