"""mpiadv: asynchronous parallel adversarial training over MPI, with the same bits every time."""

# Python has loaded it, other than `signal`: every millisecond counts here.
import _signal  # type: ignore[import-not-found]
import sys


def _module_run() -> str:
    """The module that `python -m` is about to run; empty where it is something else."""
    words = sys.orig_argv
    named = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return named[0] if named and sys.argv[:1] == ["-m"] else ""


def _begin() -> None:
    """What is to be done first of all, where a program of ours is run."""
    is_module = _module_run().partition(".")[0] == "mpiadv"
    is_command = sys.argv[:1] and sys.argv[0].rpartition("/")[2] == "mpiadv"
    if is_module and not sys.flags.safe_path:
        # A file statistics.py of the working folder is not Python's own: it is to come last.
        sys.path.append(sys.path.pop(0))
    if (is_module or is_command) and (
        _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    ):
        # Ctrl-C while the program is loaded ends it, without a traceback.
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


_begin()
