"""mpiadv: asynchronous parallel adversarial training over MPI, with the same bits every time."""

import sys


def _is_program() -> bool:
    """Whether this is `python -m mpiadv...`, which has put the working folder first."""
    words = sys.orig_argv
    named = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    is_ours = bool(named) and named[0].partition(".")[0] == "mpiadv"
    return is_ours and sys.argv[:1] == ["-m"] and not sys.flags.safe_path


if _is_program():
    # A file statistics.py of the working folder is not Python's own: the user's modules come last.
    sys.path.append(sys.path.pop(0))
