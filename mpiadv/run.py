"""`python -m mpiadv.run`: one run, alone or on every rank that mpirun started. No logic."""

import os
import sys
from collections.abc import Sequence

from mpiadv.process.errors import UserError
from mpiadv.process.interruption import Interruption
from mpiadv.process.launched import is_one_of_several, refused
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.streams import outlive_readers


def main(argv: Sequence[str] | None = None) -> int:
    """Run on this rank; returns the exit code."""
    interruption = Interruption()
    interruption.listen()
    end_with_the_starter(and_with_parent=is_one_of_several(os.environ))
    # Only now: torch and MPI take seconds, in which a signal would end a rank that does not listen.
    try:
        from mpiadv.commands.entry import on_all_ranks
        from mpiadv.commands.train import run
    except UserError as error:  # there is no MPI
        return refused(error)

    words = sys.argv[1:] if argv is None else argv
    return on_all_ranks(lambda world: run(world, words, interruption))


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
