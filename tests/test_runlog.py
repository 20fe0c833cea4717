"""The log: readable at any instant, nothing flushed is lost, cut back exactly on resume."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpiadv.errors import UserError
from mpiadv.runlog import (
    AttackerRow,
    EvaluationRow,
    FreshRow,
    RunLog,
    TrainRow,
    read_attributes,
    read_table,
)
from mpiadv.runlog.file import WRITER_OPTIONS, append_rows, write_log_file
from mpiadv.runlog.rows import Rows, cut_text, table_of

TABLES = ("train", "evaluation", "fresh", "events", "attackers")


def train_row(step: int) -> TrainRow:
    """A row that tells its step in its last column too, so that a torn one shows."""
    return TrainRow(
        step=step, ticket=step, first_version=0, last_version=0, first_staleness=step,
        last_staleness=step, rank=1, attack_steps=8, epsilon=0.3, learning_rate=1e-3, loss=2.3,
        accuracy=0.5, natural_accuracy=0.75, gradient_magnitude=1.0, craft_seconds=0.1,
        parameter_wait_seconds=0.0, trainer_wait_seconds=0.0, grant_wait_seconds=0.0,
        own_craft_seconds=0.0, wait_seconds=0.0, train_seconds=0.1, publish_seconds=0.0,
        wall_clock=step + 1.0,
    )  # fmt: skip


def evaluation_row(step: int) -> EvaluationRow:
    return EvaluationRow(
        step=step, attack="pgd", num_samples=500, natural_accuracy=0.9, adversarial_accuracy=0.5,
        natural_loss=0.1, adversarial_loss=1.0, seconds=2.0,
    )  # fmt: skip


def fresh_row(step: int) -> FreshRow:
    return FreshRow(step=step, rank=2, accuracy=0.25, loss=1.5, seconds=0.5)


def attacker_row(step: int) -> AttackerRow:
    return AttackerRow(
        step=step, rank=1, host="node1", tickets=step, craft_seconds=1.0,
        parameter_wait_seconds=0.0, trainer_wait_seconds=0.0, grant_wait_seconds=0.0,
    )  # fmt: skip


def write_steps(log: RunLog, first: int, stop: int) -> None:
    for step in range(first, stop):
        log.train(train_row(step))


def train_rows(first: int, stop: int) -> Rows:
    table = table_of(TrainRow, 1)
    return np.array([table.as_tuple(train_row(step)) for step in range(first, stop)], table.dtype)


def begin(path: Path, **options: Any) -> RunLog:
    return RunLog.create(path, attributes={"config": "a: 1\n", "seed": 3}, **options)


def resume(path: Path, step: int, **options: Any) -> RunLog:
    return RunLog.resume(path, step=step, **{"num_steps": 10000, "attributes": {}, **options})


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
    assert read_table(path, "evaluation")[0].item() == (3000, b"pgd", 500, 0.9, 0.5, 0.1, 1.0, 2.0)
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
        for table in (*TABLES, "snapshots", "snapshot_originals"):
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
    path, table = tmp_path / "log.h5", table_of(TrainRow, 1024)
    write_log_file(path, {"a": table, "b": table}, more=dict.fromkeys("ab", train_rows(0, 1)))
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
from test_runlog import begin, train_row
log = begin(Path(sys.argv[2]))
for step in itertools.count():
    log.train(train_row(step))
    if step % 7 == 6:
        log.event("kind", "text", step)
        log.flush()
        print(step + 1, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_killed_writer_loses_no_flushed_row(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "log.h5"
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path)]
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


def test_resume_cuts_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    shape = (1, 1, 2, 2)
    with begin(path, snapshot_shape=shape) as log:
        for step in (0, 500, 1000):
            write_steps(log, step, step + 500)
            log.evaluation(evaluation_row(step + 500))
            log.attacker(attacker_row(step + 500))
            log.fresh(fresh_row(step + 500))
            log.event("kind", "text", step + 500)
            log.snapshot(step + 500, np.zeros(shape, np.float32))
    for count in (1, 2):  # twice is the same as once
        resume(path, 1000, attributes={"seed": 9, "ranks": 4}).close()
        np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 1000))
        for table in ("evaluation", "attackers", "snapshots"):
            assert list(read_table(path, table)["step"]) == [500, 1000]
        assert list(read_table(path, "fresh")["step"]) == [500]  # 1000 is measured again
        events = read_table(path, "events")
        assert list(events["kind"]) == [b"start", b"kind", b"kind"] + [b"resume"] * count
        assert list(events["step"]) == [0, 500, 1000] + [1000] * count
    assert read_attributes(path) == {"format_version": 1, "config": "a: 1\n", "seed": 3}
    with h5py.File(path, "r") as file:
        assert list(file["resumes"]) == ["0001", "0002"]
        assert dict(file["resumes/0002"].attrs) == {"step": 1000, "seed": 9, "ranks": 4}


def test_originals_of_snapshots_are_kept_once_and_cut_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    images = np.full((1, 1, 2, 2), 0.5, np.float32)
    with begin(path, snapshot_shape=images.shape) as log:
        write_steps(log, 0, 20)
        for step in (10, 20):
            log.snapshot(step, images, originals=images / 2)
            log.flush()
    (kept,) = read_table(path, "snapshot_originals")
    assert kept["step"] == 10 and np.all(kept["images"] == 0.25)
    with resume(path, 5, snapshot_shape=images.shape) as log:
        assert len(read_table(path, "snapshot_originals")) == 0
        log.snapshot(6, images, originals=images / 2)
    assert read_table(path, "snapshot_originals")["step"].tolist() == [6]


def test_resumed_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 1500)
    with resume(path, 1200) as log:
        write_steps(log, 1200, 5000)
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 5000))


def test_run_that_told_its_end_and_goes_on_tells_it_once(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
        log.evaluation(evaluation_row(5))
        log.evaluation(evaluation_row(10))
        log.event("end", "hash killed before it was marked as done", 10)
    with resume(path, 10, num_steps=10) as log:
        assert list(read_table(path, "evaluation")["step"]) == [5]
        log.event("end", "hash of the second time", 10)
    ends = [row["text"] for row in read_table(path, "events") if row["kind"] == b"end"]
    assert ends == [b"hash of the second time"]


def test_log_from_before_a_table_was_added_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
    with h5py.File(path, "r+") as file:
        del file["fresh"]
    with resume(path, 8) as log:
        log.fresh(fresh_row(8))
    assert list(read_table(path, "fresh")["step"]) == [8]
    np.testing.assert_array_equal(read_table(path, "train"), train_rows(0, 8))


def test_resume_from_the_start_keeps_no_step(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
    resume(path, 0).close()
    assert len(read_table(path, "train")) == 0


def test_long_log_is_moved_in_little_memory(tmp_path: Path) -> None:
    num_rows = 2**17
    with begin(tmp_path / "log.h5") as log:
        write_steps(log, 0, num_rows)
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


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    path.write_text("not HDF5")


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["train"] = np.zeros(3)


@pytest.mark.parametrize("damage", [truncated, overwritten, foreign])
def test_unreadable_log_is_moved_aside(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "log.h5"
    for number in (1, 2):
        with resume(path, 0) if path.exists() else begin(path) as log:
            write_steps(log, 0, 100)
        damage(path)
        damaged = path.read_bytes()
        with pytest.warns(UserWarning, match=f"moved to log.h5.damaged-{number}, a new log"):
            resume(path, 100).close()
        assert (tmp_path / f"log.h5.damaged-{number}").read_bytes() == damaged
        assert list(read_table(path, "events")["kind"]) == [b"resume"]


def test_missing_log_is_begun_anew_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="missing: a new log is begun"):
        resume(tmp_path / "log.h5", 100, attributes={"seed": 3}).close()
    assert read_attributes(tmp_path / "log.h5")["seed"] == 3


def test_good_log_is_resumed_without_a_warning(tmp_path: Path) -> None:
    begin(tmp_path / "log.h5").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resume(tmp_path / "log.h5", 0).close()


def test_resume_tells_how_many_rows_were_lost(tmp_path: Path) -> None:
    with begin(tmp_path / "log.h5") as log:
        write_steps(log, 0, 10)
    with pytest.warns(UserWarning, match="lacks 5 of the rows of /train before step 15"):
        resume(tmp_path / "log.h5", 15).close()


def test_resume_with_other_snapshots_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    begin(path, snapshot_shape=(1, 1, 2, 2)).close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"holds snapshots of shape \(1, 1, 2, 2\), not"):
        resume(path, 0, snapshot_shape=(2, 1, 2, 2))
    assert path.read_bytes() == before


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
