"""The log as the trainer sees it: rows in, flushed now and then, cut back on resume."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.runlog.file import (
    FORMAT_VERSION,
    Attributes,
    Sync,
    append_rows,
    is_deleted,
    lacks_room,
    open_for_writing,
    write_log_file,
    writer_at,
)
from mpiadv.runlog.rows import (
    AttackerRow,
    EvaluationRow,
    EventRow,
    Layout,
    Rows,
    layouts_with_snapshots,
)
from mpiadv.runlog.trial import TRIAL, DamagedLogError, Trial
from mpiadv.storage.whole_files import unused_name


class RunLog:
    """A log being written. Rows wait in memory until `flush`; then they survive a kill.

    When a flush fails, all rows that it was to write go on waiting, a training step in about 200
    bytes, however many they become: the next flush tries again.

    Made by `create` or `resume`; closed by `close` or the end of the `with` block.
    """

    def __init__(
        self,
        path: Path,
        layouts: dict[str, Layout],
        *,
        flush_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self._layouts = layouts
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._flushed_at = clock()
        self._waiting: dict[str, list[tuple[Any, ...]]] = {name: [] for name in layouts}
        self._unwritten: dict[str, Rows] = {}
        self._last_sync: Sync | None = None
        self._file: h5py.File | None = open_for_writing(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        attributes: Attributes,
        snapshot_shape: tuple[int, ...] | None = None,
        flush_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Begin a log with the event `start`.

        `attributes` become attributes of the file. `snapshot_shape` is [N, C, H, W] of the images
        of a snapshot; None: no snapshots. `flush_seconds` is the pace of `maybe_flush`.

        Raises:
            FileExistsError: there is a log already: `resume` it, from step 0 if need be.
        """
        path = Path(path)
        if os.path.exists(path):
            raise FileExistsError(f"{path} exists")
        layouts = layouts_with_snapshots(snapshot_shape)
        _write_new(path, layouts, attributes)
        log = cls(path, layouts, flush_seconds=flush_seconds, clock=clock)
        log.event("start", "began the log", 0)
        log.flush(durable=True)
        return log

    @classmethod
    def resume(
        cls,
        path: str | Path,
        *,
        step: int | None,
        num_steps: int,
        attributes: Attributes,
        snapshot_shape: tuple[int, ...] | None = None,
        flush_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        trial: Trial = TRIAL,
    ) -> Self:
        """Go on with a log from a checkpoint with `step` training steps behind it.

        Rows of `/train`, `/tickets` and `/fresh` from `step` on, and others of later steps, are
        dropped; so are the evaluation after `num_steps` and the event `end`, for the run has to end
        once more. The file's attributes stay those of the first start; `attributes` go into
        `/resumes`. An event `resume` is added. A log that cannot be read is moved aside, with a
        warning, and a new one begun; so is one whose file is missing, and one that holds steps
        where `step` is None, as there is no checkpoint. `trial` reads it, for nobody knows what
        state it is in.

        Raises:
            UserError: the log holds snapshots of another shape.
            OSError: the disk is full, or similar. What was there is as it was.
        """
        path = Path(path)
        cut = {
            "step": step,
            "num_steps": num_steps,
            "snapshot_shape": snapshot_shape,
            "attributes": dict(attributes),
        }
        begun_anew, shape = _cut_back_or_begin(path, cut, trial)
        layouts = layouts_with_snapshots(snapshot_shape if begun_anew else shape)
        if begun_anew:
            warnings.warn(begun_anew, stacklevel=2)
            _write_new(path, layouts, attributes)
        log = cls(path, layouts, flush_seconds=flush_seconds, clock=clock)
        num_rows = len(log._open["train"])
        if not begun_anew and num_rows < (step or 0):
            missing = f"{path} lacks {(step or 0) - num_rows} of the rows of /train"
            warnings.warn(
                f"{missing} before step {step}: they could not be written at their time",
                stacklevel=2,
            )
        log.event("resume", begun_anew or f"went on with {num_rows} rows in /train", step or 0)
        log.flush(durable=True)
        return log

    def train(self, row: StepRecord) -> None:
        self._add("train", row)
        if len(row.tickets) > 1:
            for ticket in row.tickets:
                self._add("tickets", ticket)

    def evaluation(self, row: EvaluationRow) -> None:
        self._add("evaluation", row)

    def fresh(self, row: Probed) -> None:
        self._add("fresh", row)

    def attacker(self, row: AttackerRow) -> None:
        self._add("attackers", row)

    def event(self, kind: str, text: str, step: int) -> None:
        """Add an event, dated now."""
        self._add("events", EventRow(wall_clock=self._clock(), step=step, kind=kind, text=text))

    def snapshot(
        self,
        step: int,
        images: npt.NDArray[np.float32],
        *,
        originals: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Add attacked test images: float32 [N, C, H, W] in [0, 1], of the log's snapshot shape.

        `originals` are the images before the attack. They are the same each time, so those of the
        first snapshot are kept, in `/snapshot_originals`.

        Raises:
            ValueError: they have another shape, or the log was opened without snapshots.
        """
        layout = self._layouts.get("snapshots")
        expected = layout.dtype["images"].shape if layout else None
        if images.shape != expected:
            raise ValueError(f"snapshot of shape {images.shape}: expected {expected}")
        self._add("snapshots", (step, images.copy()))
        if originals is not None and self._is_empty("snapshot_originals"):
            self._add("snapshot_originals", (step, originals.copy()))

    def flush(self, *, durable: bool = False) -> None:
        """Hand all rows to the file: they survive the process's end, and readers see them.

        With `durable` they survive the machine's as well.

        Raises:
            OSError: the disk is full, or similar; rows already in the file stay readable, the
                others wait for the next flush.
        """
        self._flushed_at = self._clock()  # a flush that fails is tried again in its time only
        rows = self._pack()
        with _told_as_os_error():
            if self._needs_new_file(rows):
                self._move_to_new_file(rows)
            else:
                self._append(rows)
        if durable:
            self.sync()()

    def sync(self) -> Sync:
        """What brings the rows flushed so far to disk when it is called, in a thread if need be."""
        self._last_sync = Sync(self._open)
        return self._last_sync

    def maybe_flush(self) -> None:
        """Flush if it is due. Raises as `flush` does."""
        if self.is_flush_due():
            self.flush()

    def put_off(self) -> None:
        """Take a flush that could not even be tried for one that failed."""
        self._flushed_at = self._clock()

    def is_flush_due(self) -> bool:
        """Whether `flush_seconds` have passed since the last try."""
        elapsed = self._clock() - self._flushed_at
        return not 0 <= elapsed < self._flush_seconds  # below 0: the clock was set back

    def close(self) -> None:
        """Flush to disk and close. Raises as `flush` does, closed all the same."""
        if self._file is not None:
            try:
                self.flush(durable=True)
            finally:
                file, self._file = self._open, None
                with _told_as_os_error():
                    file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _open(self) -> h5py.File:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        return self._file

    def _add(self, table: str, row: Any) -> None:
        self._waiting[table].append(self._layouts[table].as_tuple(row))

    def _is_empty(self, table: str) -> bool:
        waits = self._waiting[table] or table in self._unwritten
        return not waits and len(self._open[table]) == 0

    def _pack(self) -> dict[str, Rows]:
        """The rows that wait, those of flushes that failed among them, in little memory."""
        for name, waiting in self._waiting.items():
            if waiting:
                dtype = self._layouts[name].dtype
                parts = [self._unwritten.get(name, np.empty(0, dtype)), np.array(waiting, dtype)]
                self._unwritten[name] = np.concatenate(parts)
                waiting.clear()
        return dict(self._unwritten)

    def _needs_new_file(self, rows: dict[str, Rows]) -> bool:
        if is_deleted(self._open) or (self._last_sync and self._last_sync.failed):
            return True
        return any(lacks_room(self._open[name], len(added)) for name, added in rows.items())

    def _append(self, rows: dict[str, Rows]) -> None:
        write_at = writer_at(self._open)
        for name, added in rows.items():
            append_rows(self._open[name], added, write_at)
            del self._unwritten[name]
        self._open.flush()

    def _move_to_new_file(self, rows: dict[str, Rows]) -> None:
        """Write the whole log anew; the old file stays open, and is the log, if that fails."""
        write_log_file(self.path, self._layouts, source=self._open, more=rows)
        old, self._file = self._open, open_for_writing(self.path)
        self._unwritten.clear()
        self._last_sync = None
        with contextlib.suppress(OSError, RuntimeError):
            old.close()  # what it holds is in the new one


def _write_new(path: Path, layouts: dict[str, Layout], attributes: Attributes) -> None:
    versioned = {"format_version": FORMAT_VERSION, **attributes}
    with _told_as_os_error():
        write_log_file(path, layouts, attributes=versioned)


@contextlib.contextmanager
def _told_as_os_error() -> Iterator[None]:
    """Some failures of the disk are other errors to h5py, and so is a file ruined meanwhile."""
    try:
        yield
    except (RuntimeError, KeyError) as error:
        raise OSError(str(error)) from error


def _cut_back_or_begin(
    path: Path, cut: Mapping[str, Any], trial: Trial
) -> tuple[str, tuple[int, ...] | None]:
    """Cut the log at `path` back, or move it aside; why, or the shape of its snapshots.

    `cut`: see `Trial.cut_back`, which says what is raised. A log that cannot be read, or gone on
    with, is moved; where a reason is told, a new one has to be begun.
    """
    if not os.path.exists(path):
        return f"{path} is missing: a new log is begun", None
    try:
        done = trial.cut_back(path, cut)
    except DamagedLogError as error:
        aside = _move_aside(path, "damaged")
        return f"{path} could not be read ({error}): moved to {aside}, a new log is begun", None
    if "rows" in done:
        steps = f"{path} holds {done['rows']} steps, and there is no checkpoint to go on from"
        return f"{steps}: moved to {_move_aside(path, 'old')}, a new log is begun", None
    shape = done["snapshot_shape"]
    return "", None if shape is None else tuple(shape)


def _move_aside(path: Path, why: str) -> str:
    """Give a log another name, which is returned."""
    return path.rename(unused_name(path, why)).name
