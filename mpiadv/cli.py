"""The `mpiadv` command: its first word chooses what to do, anything else trains. No logic here."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from mpiadv.command_lines.commands import COMMANDS, require_no_misspelt
from mpiadv.process.errors import UserError, tell_error
from mpiadv.process.exit_codes import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from mpiadv.process.launched import is_one_of_several
from mpiadv.process.loading import loading
from mpiadv.process.streams import is_unread, lost, outlive_readers


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
        from mpiadv.command_lines.every import usage

        print(usage(), end="")
        return EXIT_DONE
    if first == "--version":
        from importlib.metadata import version

        print(f"mpiadv {version('mpiadv')}")
        return EXIT_DONE
    _require_working_folder()
    if first not in COMMANDS:
        require_no_misspelt(arguments)
    name = first if first in COMMANDS else "train"
    return _command(name, arguments[first in COMMANDS :])


def _command(name: str, words: Sequence[str]) -> int:
    """Do what a command does, once its line has nothing to refuse or to answer."""
    from mpiadv.command_lines.every import READERS

    is_of_ranks = name in _OF_RANKS
    # Of several ranks the first one alone refuses, once they know each other.
    asked = () if is_of_ranks and is_one_of_several(os.environ) else READERS[name](words)
    if asked is None:
        return EXIT_DONE
    with loading():
        module = import_module(f"mpiadv.commands.{name if is_of_ranks else 'alone'}")
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code: int = module.main(words) if is_of_ranks else getattr(module, name)(asked)
    return code


_OF_RANKS = ("train", "evaluate", "plan")
"""Commands that read their words once they know the other ranks; the others are not for ranks."""


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


_ANSWERS = {"plan", "submit", "watch", "-h", "--help", "--version", "--print-config"}


if __name__ == "__main__":
    sys.exit(main())
