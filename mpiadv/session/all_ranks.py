"""What every program on all ranks shares: its exit codes, and how it fails."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from mpiadv.comm.mpi_world import MpiWorld
from mpiadv.comm.world import World
from mpiadv.process.errors import (
    BrokenBitsError,
    DeadlineError,
    DismissedError,
    NonFiniteLossError,
    OverfittingError,
    StorageError,
    TrainerLostError,
    UnreadableError,
    UserError,
    printable,
    tell_error,
)
from mpiadv.process.exit_codes import (
    EXIT_BAD_INPUT,
    EXIT_CODE_FILE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_RESUME_ME,
    EXIT_STOPPED,
)
from mpiadv.process.launched import refused
from mpiadv.process.memory import keep_freed_memory
from mpiadv.session.agreement import AgreedError


def on_all_ranks(program: Callable[[World], int]) -> int:
    """Run `program` on this rank; the exit code. A rank that fails says why and ends the job."""
    keep_freed_memory()
    try:
        world = MpiWorld()
    except UserError as error:
        return refused(error)
    code = _on_this_rank(world, program)
    if world.is_trainer and EXIT_CODE_FILE in os.environ:
        _tell(code)
    world.leave(code)
    return code


def _tell(code: int) -> None:
    """Leave the exit code to the launcher, in the room that it has made for it on its own host."""
    with suppress(OSError), open(os.environ[EXIT_CODE_FILE], "r+b") as file:
        file.write(f"{code:2d}".encode())


def _on_this_rank(world: World, program: Callable[[World], int]) -> int:
    try:
        world.meet()
        return program(world)
    except AgreedError as refusal:
        if world.is_trainer:
            tell_error(str(refusal))
        return EXIT_BAD_INPUT
    except DismissedError as error:
        print(f"mpiadv: {world.roster.name(world.rank)} leaves: {error}", file=sys.stderr)
        return EXIT_DONE
    except TrainerLostError as error:
        if world.rank == 1:
            tell_error(f"{error}: go on with --resume")
        return EXIT_RESUME_ME
    except (
        UserError, UnreadableError, NonFiniteLossError, OverfittingError, DeadlineError,
        BrokenBitsError, StorageError,
    ) as error:  # fmt: skip
        line = f"mpiadv: error on rank {world.rank}: {printable(str(error))}"
        told, code = f"{line}\n", _code_of(error)
    except KeyboardInterrupt:
        told, code = f"mpiadv: rank {world.rank} was stopped by Ctrl-C\n", EXIT_STOPPED
    except BaseException:
        told = f"mpiadv: rank {world.rank} on {world.host} failed:\n{traceback.format_exc()}"
        code = EXIT_FAILED
    # In one piece, so that nothing another rank says comes in between.
    sys.stderr.write(told)
    sys.stderr.flush()
    world.abort(code)
    return code


def _code_of(error: Exception) -> int:
    if isinstance(error, UserError):
        return EXIT_BAD_INPUT
    may_pass = isinstance(error, DeadlineError | UnreadableError)
    return EXIT_RESUME_ME if may_pass else EXIT_FAILED
