"""How one program of ours starts another: by which Python, with what on its path."""

import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2]


def python_module(name: str) -> list[str]:
    """The first words of a command that runs a module of ours by this Python.

    The working folder is kept off the path (`-P`): a file statistics.py there is not Python's own.
    Where it is itself what holds mpiadv, the package sees to that.
    """
    is_here = Path.cwd().resolve() == _SOURCE
    return [sys.executable, *([] if is_here else ["-P"]), "-m", name]
