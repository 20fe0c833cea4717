"""Loads much at once, such as torch, in less time. Does not know what is loaded."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def loading() -> Iterator[None]:
    """Load modules within: what they consist of is kept, and not looked through for garbage.

    That would take a fifth of the time of loading torch.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        keep_loaded()
        if was_enabled:
            gc.enable()


@cache
def keep_loaded() -> None:
    """Have what is loaded by now last as long as the process, which then ends sooner.

    To look through torch once more at the end takes almost half as long as to load it. Only the
    first call counts: what a process has made by the next may be garbage.
    """
    gc.freeze()
