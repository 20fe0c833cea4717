"""Training, as a program on every rank. No logic."""

import os
from collections.abc import Sequence

from mpiadv.process.errors import UserError
from mpiadv.process.interruption import Interruption
from mpiadv.process.launched import is_one_of_several, refused
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.loading import loading


def main(argv: Sequence[str]) -> int:
    """Train on this rank; returns the exit code."""
    interruption = Interruption()
    interruption.listen()
    end_with_the_starter(and_with_parent=is_one_of_several(os.environ))
    # Only now: torch and MPI take seconds, in which a signal would end a rank that does not listen.
    try:
        with loading():
            from mpiadv.session.all_ranks import on_all_ranks
            from mpiadv.session.run import run
    except UserError as error:  # there is no MPI
        return refused(error)
    return on_all_ranks(lambda world: run(world, argv, interruption))
