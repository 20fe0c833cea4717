"""`mpiadv evaluate`: attack trained networks, alone or on all ranks. No logic."""

import json
import os
import sys
from collections.abc import Sequence

from mpiadv.comm.world import World
from mpiadv.examination.conduct import examine
from mpiadv.examination.wanted import Wanted, read_request
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.process.launched import is_one_of_several
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.loading import keep_loaded
from mpiadv.process.streams import outlive_readers
from mpiadv.session.agreement import agree
from mpiadv.session.all_ranks import on_all_ranks
from mpiadv.session.display import console_for


def main(argv: Sequence[str]) -> int:
    """Evaluate on this rank; returns the exit code."""
    end_with_the_starter(and_with_parent=is_one_of_several(os.environ))
    return on_all_ranks(lambda world: run(world, argv))


def run(world: World, argv: Sequence[str]) -> int:
    """Evaluate on the ranks of `world`; returns this rank's exit code."""
    answer = world.share(agree(world, lambda: read_request(argv) if world.is_trainer else ""))
    if not answer:
        return EXIT_DONE
    request = json.loads(answer)
    console = console_for(sys.stdout)
    for path, settings in request:
        examine(world, Wanted(**settings), path, console)
    return EXIT_DONE


if __name__ == "__main__":
    keep_loaded()
    outlive_readers()
    sys.exit(main(sys.argv[1:]))
