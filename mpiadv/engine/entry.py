"""What every program on all ranks shares: its exit codes, its command line, how it fails."""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from mpiadv.comm.world import World
from mpiadv.engine.session import AgreedError
from mpiadv.errors import DeadlineError, NonFiniteLossError, StorageError, UserError

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_RESUME_ME = 0, 1, 2, 75


class CommandLine(argparse.ArgumentParser):
    """A command line that refuses with a `UserError`, abbreviated options too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see --help")


def on_all_ranks(program: Callable[[World], int]) -> int:
    """Run `program` on this rank; the exit code. A rank that fails says why and ends the job."""
    try:
        world = World()
    except UserError as error:
        print(f"mpiadv: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        return program(world)
    except AgreedError as refusal:
        if world.is_trainer:
            print(f"mpiadv: error: {refusal}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except (UserError, NonFiniteLossError, DeadlineError, StorageError) as error:
        told = f"mpiadv: error on rank {world.rank}: {error}\n"
        code = EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED
    except KeyboardInterrupt:
        told, code = f"mpiadv: rank {world.rank} was stopped by Ctrl-C\n", EXIT_FAILED
    except BaseException:
        told = f"mpiadv: rank {world.rank} on {world.host} failed:\n{traceback.format_exc()}"
        code = EXIT_FAILED
    # In one piece, so that nothing another rank says comes in between.
    sys.stderr.write(told)
    sys.stderr.flush()
    world.abort(code)
    return code
