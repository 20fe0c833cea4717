"""Brings log and checkpoints to disk beside training, and outlives a disk that is full or gone.

Knows the log, the checkpoints and their folder, but neither a trainer nor what a checkpoint holds.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mpiadv.process.errors import StorageError
from mpiadv.process.words import counted
from mpiadv.runlog import RunLog
from mpiadv.storage.checkpoint import newest_step, save_checkpoint
from mpiadv.storage.run_folder import RunFolder

PARTING_SECONDS = 30.0
"""How long a run that failed waits for a checkpoint that is being written."""

Snapshot = tuple[dict[str, Any], Callable[[], None]]
"""What a checkpoint holds, in memory that training leaves alone, and what waits until it does."""


@dataclass(kw_only=True)
class Failures:
    """How often something could not be written: in all, and since it last could."""

    total: int = 0
    lasting: int = 0
    reason: str = ""

    def add(self, reason: str) -> bool:
        """Count one; whether it is the first since something was written."""
        self.total += 1
        self.lasting += 1
        self.reason = reason
        return self.lasting == 1

    def end(self) -> int:
        """Something was written: how often it could not be before."""
        ended, self.lasting = self.lasting, 0
        return ended


@dataclass(kw_only=True)
class Safekeeping:
    """Flushes the log, and writes checkpoints in the background, at most one at a time.

    A failure is told once on the screen, by `say`, and each in the log; training goes on, what was
    on disk stays there, and the next time that is due is another try.
    """

    log: RunLog
    folder: RunFolder
    keep: int
    say: Callable[[str], None]
    deadline_seconds: float
    clock: Callable[[], float] = time.perf_counter
    saved_step: int = -1
    """The newest checkpoint of this run that is known to be on disk."""
    seconds: float = 0.0
    """For which training was held up."""
    num_saved: int = 0
    num_left_out: int = 0
    """Checkpoints that came due while the one before was still being written."""
    log_failures: Failures = field(default_factory=Failures)
    checkpoint_failures: Failures = field(default_factory=Failures)
    _write: tuple[int, Future[None]] | None = None
    """That of a checkpoint, by its step, until its result is taken."""

    def after_step(self, step: int) -> None:
        """Flush the log if it is time, and hear of the checkpoint under way."""
        with self._held_up():
            if self.log.is_flush_due():
                self._flush(step)
            if news := self.folder.lock.take_news():
                self._tell("lock", news, step)
            self._take_result(step)

    def save(self, step: int, take: Callable[[], Snapshot]) -> None:
        """Begin to write a checkpoint; left out while another one is being written."""
        with self._held_up():
            self._take_result(step)
            if step == self.saved_step or (self._write and step == self._write[0]):
                return
            if self._write:
                self.num_left_out += 1
            elif self._flush(step):
                self._begin(step, take, self.log.sync())
            else:
                self._failed(step, f"the log before it: {self.log_failures.reason}")

    def save_last(self, step: int, take: Callable[[], Snapshot], idle: Callable[[], None]) -> None:
        """Begin to write a checkpoint that must not be left out; `idle` is called while waiting.

        It is written even if the log cannot be: whoever resumes loses rows rather than training.

        Raises:
            StorageError: the one before is still being written after `deadline_seconds`.
        """
        self.settle(step, idle)
        if step != self.saved_step:
            with self._held_up():
                sync = self.log.sync() if self._flush(step) else lambda: None
                self._begin(step, take, sync)

    def settle(self, step: int, idle: Callable[[], None] = lambda: None) -> None:
        """Wait for the checkpoint under way, if any.

        Raises:
            StorageError: it is still being written after `deadline_seconds`.
        """
        with self._held_up():
            deadline = self.clock() + self.deadline_seconds
            while self._write and wait([self._write[1]], 0.001).not_done:
                idle()
                if self.clock() > deadline:
                    raise StorageError(
                        f"the checkpoint of step {self._write[0]} is still being written after "
                        f"{self.deadline_seconds:g} s: {self.newest()}"
                    )
            self._take_result(step)

    def require_saved(self, step: int, idle: Callable[[], None] = lambda: None) -> None:
        """Wait until the checkpoint of this step, given up to `save_last`, is on disk.

        Raises:
            StorageError: it is not; the text says why and what there is instead.
        """
        self.settle(step, idle)
        if self.saved_step != step:
            reason = self.checkpoint_failures.reason
            raise StorageError(
                f"interrupted at step {step}, and its checkpoint could not be written ({reason}): "
                f"{self.newest()}; free space, or whatever it takes, then go on with --resume"
            )

    def close(self) -> None:
        """Leave behind what can be; for a run that failed, too, so it raises nothing."""
        if self._write:
            wait([self._write[1]], PARTING_SECONDS)
        try:
            self.folder.lock.require_held()  # else the log there is another run's
            self.log.close()
        except OSError as error:
            self.say(f"warning: the last rows of {self.log.path} are lost ({reason_of(error)})")

    def newest(self) -> str:
        """Which checkpoint there is, in words."""
        step = newest_step(self.folder.checkpoints)
        return "there is no checkpoint" if step is None else f"the newest one is of step {step}"

    def report(self) -> dict[str, str]:
        """What a user should know at the end of the run, if anything."""
        rows = {}
        saved, log = self.checkpoint_failures, self.log_failures
        if saved.total:
            tries = saved.total + self.num_saved
            rows["failed checkpoints"] = (
                f"{saved.total} of {tries} ({saved.reason}); {self.newest()}"
            )
        if self.num_left_out:
            left_out = counted(self.num_left_out, "checkpoint")
            rows["left out"] = f"{left_out}, while the one before was still being written"
        if log.total:
            state = "the last rows are missing" if log.lasting else "no row is missing"
            rows["failed log writes"] = f"{log.total} ({log.reason}); {state}"
        return rows

    def _begin(self, step: int, take: Callable[[], Snapshot], sync: Callable[[], None]) -> None:
        state, complete = take()

        def write() -> None:
            sync()  # the log's rows are on disk before the checkpoint that follows them
            self.folder.lock.require_held()
            complete()
            save_checkpoint(self.folder.checkpoints, step, state, keep=self.keep)

        assert self._write is None, "one write at a time"
        self._write = step, _beside(write, f"checkpoint-{step}")

    def _take_result(self, step: int) -> None:
        if self._write is None or not self._write[1].done():
            return
        (written, write), self._write = self._write, None
        try:
            write.result()
        except OSError as error:
            self._failed(written, reason_of(error), now=step)
            return
        self.saved_step = written
        self.num_saved += 1
        if count := self.checkpoint_failures.end():
            text = f"checkpoints are written again, the first is of step {written}"
            self._tell("checkpoint written", f"{text}; {count} failed", step)

    def _failed(self, step: int, reason: str, *, now: int | None = None) -> None:
        is_news = self.checkpoint_failures.add(reason)
        text = f"the checkpoint of step {step} could not be written ({reason})"
        self.log.event("checkpoint failed", text, step if now is None else now)
        if is_news:
            self.say(f"warning: {text}: training goes on, {self.newest()}, the next is a new try")

    def _flush(self, step: int) -> bool:
        """Flush the log; whether that worked."""
        try:
            self.folder.lock.require_held()
            self.log.flush()
        except OSError as error:
            self.log.put_off()
            reason = reason_of(error)
            if self.log_failures.add(reason):
                text = f"{self.log.path} could not be written ({reason})"
                self.log.event("log failed", text, step)
                self.say(f"warning: {text}: training goes on, its rows are kept for another try")
            return False
        if self.log_failures.end():
            self._tell("log written", f"{self.log.path} is written again, no row is missing", step)
        return True

    def _tell(self, kind: str, text: str, step: int) -> None:
        self.log.event(kind, text, step)
        self.say(text)

    @contextmanager
    def _held_up(self) -> Iterator[None]:
        began = self.clock()
        try:
            yield
        finally:
            self.seconds += self.clock() - began


def _beside(work: Callable[[], None], name: str) -> Future[None]:
    """Work in a thread of its own.

    It is a daemon, unlike those of a pool: a disk that never answers must not keep a failed run
    from ending.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def reason_of(error: OSError) -> str:
    """Why a write failed, in a few words: h5py's own text goes over several lines."""
    text = error.strerror or str(error)
    if found := re.search(r"error message = '([^']+)'", text):  # HDF5's own, at its end
        return found[1]
    if "\n" in text and error.errno:
        return os.strerror(error.errno)
    return text.splitlines()[0] if text else type(error).__name__
