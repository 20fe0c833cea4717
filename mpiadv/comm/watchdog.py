"""Ends a rank that MPI does not let go of. Knows no MPI itself."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mpiadv.process.exit_codes import EXIT_RESUME_ME

LOOKS_PER_DEADLINE = 20


class Watchdog:
    """Looks, from a thread of its own, whether one call into MPI takes longer than the deadline.

    A rank that is killed while it writes into memory that it shares with others can leave them
    waiting inside MPI for ever, where no deadline of ours is looked at. `name` is the rank's.
    """

    def __init__(self, name: str, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        self.name = name
        self._call = 0
        self._is_inside = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A call to keep an eye on; it has to release Python's lock."""
        if self._thread is None:
            # A daemon: threads that are not would keep a rank that failed from ending.
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._call += 1
        self._is_inside = True
        try:
            yield
        finally:
            self._is_inside = False

    def _watch(self) -> None:
        call, looks = -1, 0
        while looks <= LOOKS_PER_DEADLINE:
            # Counts looks, not time: while the rank itself is stopped nobody looks.
            time.sleep(self.deadline_seconds / LOOKS_PER_DEADLINE)
            looks = looks + 1 if self._is_inside and self._call == call else 0
            call = self._call
        sys.stderr.write(
            f"mpiadv: error: {self.name} has been inside MPI for {self.deadline_seconds:g} s, "
            "perhaps since another rank died: go on with --resume\n"
        )
        sys.stderr.flush()
        os._exit(EXIT_RESUME_ME)
