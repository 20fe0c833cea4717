"""Reads again, for a while, what could not be read: file systems of clusters have bad moments."""

import time
from collections.abc import Callable
from typing import TypeVar

from mpiadv.process.errors import UnreadableError, UserError

T = TypeVar("T")

LONGEST_SECONDS = 60.0
"""From the first try to the last one."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Each pause between two tries is twice as long as the one before."""


def read_patiently(
    read: Callable[[], T],
    what: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `read` gives; tried again where the system, rather than the content, is at fault.

    Raises:
        UnreadableError: it could not be read for `LONGEST_SECONDS`.
        UserError: as `read` does, unless an error of the system is its cause.
    """
    began, pause = clock(), FIRST_PAUSE_SECONDS
    while True:
        try:
            return read()
        except (UserError, OSError) as error:
            fault = _fault_of_the_system(error)
            if fault is None:
                raise
            waited = clock() - began
            if waited >= LONGEST_SECONDS:
                raise UnreadableError(
                    f"{what} could not be read for {waited:.0f} s ({fault.strerror})"
                ) from error
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _fault_of_the_system(error: BaseException) -> OSError | None:
    cause = error.__cause__ if isinstance(error, UserError) else error
    # Decoders raise OSError without a number, for damaged content.
    return cause if isinstance(cause, OSError) and cause.errno is not None else None
