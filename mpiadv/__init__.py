"""mpiadv: asynchronous parallel adversarial training over MPI, with the same bits every time.

The names below are for Python programs: `docs/library.md` shows them at work.
"""

# Python has loaded it, other than `signal`: every millisecond counts here.
import _signal  # type: ignore[import-not-found]
import sys

TYPE_CHECKING = False  # as `typing` has it, without loading that
if TYPE_CHECKING:  # and no `__getattr__` then, behind which any name would pass
    from mpiadv.library.logs import RunLog, read_log
    from mpiadv.library.networks import attack, load_model
    from mpiadv.library.training import TrainedRun, train
    from mpiadv.process.errors import UserError
    from mpiadv.settings import Config, load_config

    __version__: str

__all__ = [
    "Config",
    "RunLog",
    "TrainedRun",
    "UserError",
    "attack",
    "load_config",
    "load_model",
    "read_log",
    "train",
]

_HOMES = {
    "mpiadv.library.logs": ("RunLog", "read_log"),
    "mpiadv.library.networks": ("attack", "load_model"),
    "mpiadv.library.training": ("TrainedRun", "train"),
    "mpiadv.process.errors": ("UserError",),
    "mpiadv.settings": ("Config", "load_config"),
}
"""Where they are loaded from, once they are asked for: torch takes seconds."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("mpiadv")
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                return getattr(import_module(home), name)
        raise AttributeError(f"module 'mpiadv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


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
