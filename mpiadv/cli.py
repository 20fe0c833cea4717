"""The `mpiadv` command: its first word chooses what to do, anything else trains. No logic here."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module

from mpiadv.command_lines import CommandLine, evaluate, is_answered, launch, plan, train
from mpiadv.command_lines.commands import require_no_misspelt
from mpiadv.process.errors import UserError, tell_error
from mpiadv.process.exit_codes import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.launched import is_one_of_several
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.streams import is_unread, lost, outlive_readers

USAGE = """\
usage: mpiadv [CONFIG] [key.subkey=value ...] [--resume] [--print-config]
       mpiadv launch -n RANKS [CONFIG] [key.subkey=value ...] [--resume]
       mpiadv evaluate CHECKPOINT ... [--attack NAME:steps=K,...] [--protocol NAME] [--help]
       mpiadv report LOG_OR_RUN_FOLDER ... [--output PAGE] [--figures FOLDER] [--overwrite]
       mpiadv watch LOG_OR_RUN_FOLDER [--every SECONDS] [--once]
       mpiadv plan [CONFIG] [key.subkey=value ...] [--ranks N,N,...] [--help]
       mpiadv study NAME --preset smoke|small|paper [--output FOLDER] [--help]
       mpiadv submit [CONFIG] [key.subkey=value ...] --gpus N [--nodes N] [--dry-run] [--help]

Trains a robust classifier; CONFIG is a YAML file, and without one a small data set of digits is
trained in a minute.

  mpiadv CONFIG ...           train on one rank, or on those of the mpirun or srun around it
  mpiadv launch -n 8 CONFIG   train on 8 ranks of this machine, or of this allocation
  mpiadv evaluate FOLDER ...  attack trained networks; after launch -n 8: on 8 ranks
  mpiadv report FOLDER ...    write a page of figures about runs, from their logs
  mpiadv watch FOLDER         show a run in the terminal as it goes on
  mpiadv plan CONFIG          say how fast a job will be on how many ranks, and what limits it
  mpiadv study power ...      rerun a study of the paper, from its runs to its figures
  mpiadv submit CONFIG ...    train in a Slurm job, which goes on until the run is done
  key.subkey=value            change a setting, for example training.num_steps=500
  --fault-tolerant            after launch -n 8, or submit: go on without lost attackers
  --resume                    go on from the last checkpoint in the run's folder
  --trust-code                run the functions that a file names as its model or data set
  --print-config              print every setting with its value, and stop
  --version                   print the version, and stop

exit codes: 0 finished, 1 failed, 2 bad input, 75 interrupted: --resume goes on
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; bad input is one line on standard error."""
    outlive_readers()
    _have_a_home()
    arguments = [_with_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    with _ended_by_ctrl_c(for_good=argv is None):
        try:
            code = _run(arguments)
        except UserError as error:
            tell_error(str(error))
            code = EXIT_BAD_INPUT
        except SystemExit as end:  # a command's own help
            code = int(end.code or EXIT_DONE)
        except KeyboardInterrupt:
            print("mpiadv: stopped by Ctrl-C", file=sys.stderr)
            code = EXIT_STOPPED
    return code or _code_of_answer(arguments)


def _run(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help"):
        print(USAGE, end="")
        return EXIT_DONE
    if first == "--version":
        from importlib.metadata import version

        print(f"mpiadv {version('mpiadv')}")
        return EXIT_DONE
    _require_working_folder()
    if first not in COMMANDS:
        require_no_misspelt(arguments)
    return COMMANDS.get(first, TRAIN)(arguments[first in COMMANDS :])


def _have_a_home() -> None:
    """See to it that there is a HOME, without which Open MPI does not start."""
    home = os.path.expanduser("~")  # by the user's number, if need be
    os.environ.setdefault("HOME", "/" if home == "~" else home)


def _with_home(word: str) -> str:
    """A word, or the value of an option, with the home for `~` that no shell has put there."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}"


def _require_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working folder was deleted: change to one that exists") from None


def _launch(arguments: Sequence[str]) -> int:
    wanted = launch.read(arguments)
    if wanted is None:
        return EXIT_DONE
    with SignalRelay().listening() as relay:
        end_with_the_starter()
        # Only now: a request to end may come while it is loaded.
        from mpiadv.cluster.launch import launch as start

        return start(wanted, relay)


def _job(arguments: Sequence[str]) -> int:
    from mpiadv.cluster.attempt import Attempt

    attempt = Attempt()
    attempt.listen()
    # Only now: Slurm may warn of the job's end while it is loaded.
    from mpiadv.cluster.job import main as job

    return job(arguments, attempt)


def _of(module: str, parser: Callable[[], CommandLine] | None = None) -> "Command":
    """A module's `main`, loaded once the `parser` of its command line has nothing to refuse."""

    def command(arguments: Sequence[str]) -> int:
        # Of several ranks the first one alone refuses, once they know each other.
        if parser and not is_one_of_several(os.environ) and is_answered(parser(), arguments):
            return EXIT_DONE
        main = _program(module)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main(arguments)

    return command


def _program(module: str) -> "Command":
    main: Command = import_module(module).main
    return main


@contextmanager
def _ended_by_ctrl_c(*, for_good: bool) -> Iterator[None]:
    """Let Ctrl-C end this process in silence, until a command is loaded that has its own way.

    Afterwards, if the process ends then for good, there is nothing left that it could end.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if for_good else before)


def _code_of_answer(arguments: Sequence[str]) -> int:
    """The exit code of what has gone well, which it has not where its answer found no room.

    Whoever reads may leave before the end. What runs leave in files does not depend on any of it.
    """
    error = lost(sys.stdout)
    if error is None or is_unread(sys.stdout):
        return EXIT_DONE
    tell_error(f"cannot print: {error.strerror}")
    is_answer = arguments and (arguments[0] in _ANSWERS or not _ANSWERS.isdisjoint(arguments))
    return EXIT_FAILED if is_answer else EXIT_DONE


TRAIN = _of("mpiadv.run", train.parser)

_ANSWERS = {"plan", "submit", "watch", "-h", "--help", "--version", "--print-config"}

Command = Callable[[Sequence[str]], int]

COMMANDS: Mapping[str, Command] = {
    "evaluate": _of("mpiadv.commands.evaluate", evaluate.parser),
    "job": _job,
    "launch": _launch,
    "plan": _of("mpiadv.commands.plan", plan.parser),
    "report": _of("mpiadv.commands.report"),
    "study": _of("mpiadv.commands.study"),
    "submit": _of("mpiadv.commands.submit"),
    "watch": _of("mpiadv.commands.watch"),
}
"""First word of the command line to what it does."""


if __name__ == "__main__":
    sys.exit(main())
