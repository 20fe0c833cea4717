"""One write at a time, in a thread of its own. Knows nothing of what is written."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Written:
    """How a write went: `error` None says that it is on disk."""

    step: int
    seconds: float
    error: OSError | None


class Saver:
    """Runs one write at a time beside its caller.

    The thread is a daemon: a disk that never answers must not keep a failed run from ending. While
    all goes well it is waited for.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._step = -1
        self._written: Written | None = None
        self._bug: BaseException | None = None

    @property
    def step(self) -> int | None:
        """The step whose write has begun and whose result is not taken yet; None: one may begin.

        Not whether the thread lives: it may end between two looks.
        """
        return self._step if self._thread is not None else None

    def begin(self, step: int, write: Callable[[], object]) -> None:
        """Begin a write; only when the result of the one before is taken."""
        assert self._thread is None, "one write at a time"
        self._step = step
        self._thread = threading.Thread(
            target=self._run, args=(step, write), name=f"checkpoint-{step}", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether there is nothing more to wait for."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def take_result(self) -> Written | None:
        """How the last write went, told once; None while it goes on or when there was none.

        Raises:
            BaseException: what the write raised, where that is no failure of the disk.
        """
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._bug is not None:
            raise self._bug
        return self._written

    def _run(self, step: int, write: Callable[[], object]) -> None:
        began, error = self._clock(), None
        try:
            write()
        except OSError as raised:
            error = raised
        except BaseException as raised:
            self._bug = raised
        self._written = Written(step=step, seconds=self._clock() - began, error=error)
