"""The log: readable at any instant, and nothing flushed is lost."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from mpi_runner import HERE
from plain_logs import (
    attacker_row,
    begin,
    evaluation_row,
    fresh_row,
    resume,
    train_row,
    train_rows,
    write_steps,
)

from mpiadv.contract.accounts import StepRecord
from mpiadv.contract.columns import cut_text
from mpiadv.process.errors import UserError
from mpiadv.runlog import read_attributes, read_table
from mpiadv.runlog.file import WRITER_OPTIONS, append_rows, write_log_file
from mpiadv.runlog.rows import layout_of

LAYOUTS = ("train", "evaluation", "fresh", "events", "attackers")


def test_rows_are_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    images = np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
    with begin(path, snapshot_shape=(2, 1, 4, 4), clock=lambda: 123.0) as log:
        write_steps(log, 0, 3000)
        log.evaluation(evaluation_row(3000))
        log.fresh(fresh_row(2000))
        log.attacker(attacker_row(3000))
        log.snapshot(3000, images)
        images[:] = 0  # the log must have its own copy
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 3000))
    (evaluation,) = read_table(path, "evaluation").tolist()
    assert evaluation == (3000, b"pgd", 500, 0.9, 0.5, 0.1, 1.0, 2.0, b"raw", b"test")
    assert read_table(path, "fresh")[0].item() == (2000, 2, 0.25, 1.5, 0.5)
    assert read_table(path, "attackers")[0].item() == (3000, 1, b"node1", 3000, 1.0, 0.0, 0.0, 0.0)
    assert read_table(path, "events")[0].item() == (123.0, 0, b"start", b"began the log")
    (snapshot,) = read_table(path, "snapshots")
    assert snapshot["step"] == 3000 and snapshot["images"].min() > 0


def test_attributes_are_kept(tmp_path: Path) -> None:
    begin(tmp_path / "log.h5").close()
    expected = {"format_version": 1, "config": "a: 1\n", "seed": 3}
    assert read_attributes(tmp_path / "log.h5") == expected


def test_every_column_tells_its_unit(tmp_path: Path) -> None:
    begin(tmp_path / "log.h5", snapshot_shape=(1, 1, 2, 2)).close()
    with h5py.File(tmp_path / "log.h5", "r") as file:
        for table in (*LAYOUTS, "snapshots", "snapshot_originals"):
            units = dict(file[table].attrs)
            assert set(units) == {f"unit:{column}" for column in file[table].dtype.names}
            assert all(units.values())


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("abc", 3, b"abc"), ("abcd", 3, b"abc"), ("aéé", 4, "aé".encode()), ("€", 2, b"")],
    ids=["fits", "too long", "inside a character", "not even one"],
)
def test_long_text_is_cut_between_characters(text: str, length: int, expected: bytes) -> None:
    assert cut_text(text, length) == expected


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), None], ids=["other shape", "no snapshots"])
def test_snapshot_of_another_shape_is_refused(tmp_path: Path, shape: Any) -> None:
    with (
        begin(tmp_path / "log.h5", snapshot_shape=shape) as log,
        pytest.raises(ValueError, match=rf"expected {re.escape(str(shape))}"),
    ):
        log.snapshot(0, np.zeros((1, 1, 3, 3), np.float32))


def test_existing_log_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        begin(path)
    assert path.read_text() == "mine"


def test_flush_waits_for_its_time(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    times = iter([1000.0, 1000.0, 1000.0, 1004.0, 1005.0, 1005.0, 1009.0, 900.0, 900.0])
    flushed = []
    log = begin(path, flush_seconds=5.0, clock=lambda: next(times))  # reads its clock three times
    for step in range(4):
        log.train(train_row(step))
        log.maybe_flush()
        flushed.append(len(read_table(path, "train")))
    assert flushed == [0, 2, 2, 4]  # at last the clock is set back


class RecordedFile(io.BytesIO):
    """A file in memory that remembers every change to it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.changes: list[tuple[int, bytes | None]] = []

    def write(self, data: Any) -> int:
        self.changes.append((self.tell(), bytes(data)))
        return super().write(data)

    def write_at(self, offset: int, data: bytes) -> None:
        self.seek(offset)
        self.write(data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self.changes.append((size, None))
        missing = size - len(self.getbuffer())
        if missing > 0:
            self.seek(0, io.SEEK_END)
            super().write(bytes(missing))
        return super().truncate(size)


def test_log_is_whole_between_any_two_writes(tmp_path: Path) -> None:
    """What a kill leaves, or a reader meets: every state between two writes of the library."""
    path, layout = tmp_path / "log.h5", layout_of(StepRecord, 1024)
    write_log_file(path, {"a": layout, "b": layout}, more=dict.fromkeys("ab", train_rows(0, 1)))
    first = path.read_bytes()
    recorded = RecordedFile(first)
    flushed_at = {}
    with h5py.File(recorded, "r+", **WRITER_OPTIONS) as file:
        for start in range(1, 600, 30):
            for name in "ab":
                append_rows(file[name], train_rows(start, start + 30), recorded.write_at)
            file.flush()
            flushed_at[len(recorded.changes)] = start + 30
    state, flushed = RecordedFile(first), 1
    for count, (position, data) in enumerate(recorded.changes, start=1):
        state.seek(position)
        state.truncate() if data is None else state.write(data)
        flushed = flushed_at.get(count, flushed)
        with h5py.File(io.BytesIO(state.getvalue()), "r") as file:
            for name in "ab":
                rows = file[name][:]
                assert len(rows) >= flushed
                np.testing.assert_array_equal(rows, train_rows(0, len(rows)))
    assert len(flushed_at) == 20 and len(recorded.changes) >= 60


WRITER = """
import itertools, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from plain_logs import begin, train_row
log = begin(Path(sys.argv[2]))
for step in itertools.count():
    log.train(train_row(step))
    if step % 7 == 6:
        log.event("kind", "text", step)
        log.flush()
        print(step + 1, flush=True)
"""


RUINED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from plain_logs import begin, train_row
path = Path(sys.argv[2])
log = begin(path)
log.train(train_row(0))
log.flush()
if sys.argv[3] == "truncated":
    os.truncate(path, 3000)
else:
    with path.open("r+b") as file:
        file.write(b"text" * 2000)
for end in (log.flush, log.close):
    for step in range(1, 1000):
        log.train(train_row(step))
    try:
        end()
    except OSError as error:
        print("OSError:", error.__cause__.__class__.__name__)
"""


@pytest.mark.parametrize("how", ["truncated", "overwritten"])
def test_log_that_others_ruin_meanwhile_could_not_be_written(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", RUINED, str(HERE), str(tmp_path / "log.h5"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, 2 * "OSError: KeyError\n"), done.stderr


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_killed_writer_loses_no_flushed_row(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "log.h5"
    command = [sys.executable, "-c", WRITER, str(HERE), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        flushed = int(writer.stdout.readline())
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline:  # a reader while the run writes
            read_table(path, "events")
            rows = read_table(path, "train")
            np.testing.assert_array_equal(rows, train_rows(0, len(rows)))
        writer.send_signal(signal.SIGKILL)
        flushed = max([flushed, *map(int, writer.stdout.read().split())])
    rows = read_table(path, "train")
    assert len(rows) >= flushed
    np.testing.assert_array_equal(rows, train_rows(0, len(rows)))
    resume(path, 5).close()
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 5))


def test_long_log_is_moved_in_little_memory(tmp_path: Path) -> None:
    num_rows = 2**17
    with begin(tmp_path / "log.h5") as log:
        row = train_row(0)  # as good as any, and made once
        for _ in range(num_rows):
            log.train(row)
        log.flush()
        with h5py.File(tmp_path / "log.h5", "r", locking=False) as file:
            assert file["train"].chunks == (num_rows,)  # one row more, and it has to move
        write_steps(log, num_rows, num_rows + 1)
        tracemalloc.start()
        log.flush()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    moved = read_table(tmp_path / "log.h5", "train")
    assert len(moved) == num_rows + 1
    assert peak < moved.nbytes / 4


def test_reading_what_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no log at"):
        read_table(tmp_path / "log.h5", "train")
    begin(tmp_path / "log.h5").close()
    with pytest.raises(UserError, match="no table 'tests': it has attackers, evaluation"):
        read_table(tmp_path / "log.h5", "tests")


def test_failed_growth_keeps_the_log_and_the_waiting_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
        log.flush()
        write_steps(log, 10, 3000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full_disk)
            with pytest.raises(OSError, match="No space left"):
                log.flush()
        np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 10))
        assert [file.name for file in tmp_path.iterdir()] == ["log.h5"]
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 3000))


def test_full_disk_leaves_the_flushed_rows_and_later_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
        log.flush()
        write_steps(log, 10, 20)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full_disk)
            with pytest.raises(OSError, match="No space left"):
                log.flush()
        np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 10))
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 20))


def full_disk(*arguments: Any) -> None:
    raise OSError(28, "No space left on device")
