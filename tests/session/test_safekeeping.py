"""Log and checkpoints beside training: never in its way, whatever the disk does."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from disk_faults import fill, largest_file, read_only, replaced_by_a_file, tiny_disk
from plain_logs import begin, train_row, train_rows

from mpiadv.process.errors import StorageError
from mpiadv.runlog import read_table
from mpiadv.session import safekeeping
from mpiadv.session.safekeeping import Safekeeping, Snapshot
from mpiadv.storage.checkpoint import load_newest, save_checkpoint
from mpiadv.storage.run_folder import RunFolder


class Bench:
    """A run without training: steps of which only the log and the checkpoints tell."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path, resume=False)
        self.log = begin(self.folder.log, flush_seconds=1000.0)
        self.said: list[str] = []
        self.step = 0
        self.kept = Safekeeping(
            log=self.log, folder=self.folder, keep=2, say=self.said.append, deadline_seconds=20.0
        )

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.log.train(train_row(self.step))
            self.step += 1
            self.kept.after_step(self.step)

    def snapshot(self) -> Snapshot:
        return {"step": self.step, "weights": torch.full((50_000,), float(self.step))}, lambda: None

    def save(self) -> None:
        self.kept.save(self.step, self.snapshot)

    def saved(self) -> int:
        self.save()
        self.kept.settle(self.step)
        return self.newest()

    def newest(self) -> int:
        checkpoint = load_newest(self.folder.checkpoints)
        assert checkpoint is not None
        assert (checkpoint.payload["weights"] == checkpoint.step).all()
        return checkpoint.step

    def flushed(self, num_steps: int) -> None:
        """As `train`, with the rows in the log: the first ones have made it a new file."""
        self.train(num_steps)
        self.log.flush()

    def rows(self) -> int:
        rows = read_table(self.folder.log, "train")
        assert (rows == train_rows(0, len(rows))).all()
        return len(rows)

    def events(self, kind: str) -> list[str]:
        events = read_table(self.folder.log, "events")
        return [event["text"].decode() for event in events if event["kind"] == kind.encode()]

    def close(self) -> None:
        self.kept.close()
        self.folder.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path / "run")
    yield opened
    opened.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints are written only while this is set."""
    opened = threading.Event()

    def save_when_open(*arguments: Any, **options: Any) -> Path:
        assert opened.wait(20)
        return save_checkpoint(*arguments, **options)

    monkeypatch.setattr(safekeeping, "save_checkpoint", save_when_open)
    yield opened
    opened.set()


def test_lock_that_was_removed_costs_no_row(bench: Bench) -> None:
    bench.flushed(10)
    (bench.folder.path / "lock").unlink()
    bench.train(5)
    assert bench.saved() == 15
    bench.train(1)
    assert [said for said in bench.said if "lock was removed" in said] == bench.said
    assert bench.rows() == 15 and len(bench.events("lock")) == 0
    bench.log.flush()
    assert bench.rows() == 16 and len(bench.events("lock")) == 1


def test_log_of_a_run_that_took_the_folder_is_left_alone(bench: Bench) -> None:
    bench.flushed(10)
    (bench.folder.path / "lock").unlink()
    with RunFolder.open(bench.folder.path, resume=True) as other:
        other.log.unlink()
        other.log.write_text("the other run's")
        bench.train(5)
        bench.save()
        bench.kept.close()
        assert other.log.read_text() == "the other run's"
    told = "another run has taken the run's folder"
    assert [told in said for said in bench.said] == [True, True, True]


def test_lost_folder_is_tried_as_often_as_configured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.log._flush_seconds = 5.0  # the clock of the log is that of the test
    now, tries = bench.log._clock(), []
    monkeypatch.setattr(bench.log, "_clock", lambda: now)
    require_held = bench.folder.lock.require_held
    monkeypatch.setattr(
        bench.folder.lock, "require_held", lambda: (tries.append(now), require_held())
    )
    shutil.rmtree(bench.folder.path)
    for _ in range(200):
        now += 0.1
        bench.train(1)
    assert len(tries) == pytest.approx(20 / 5, abs=1)


def test_training_goes_on_while_a_checkpoint_is_written(
    bench: Bench, gate: threading.Event
) -> None:
    bench.train(10)
    bench.save()
    bench.train(10)
    assert bench.kept.saved_step == -1
    gate.set()
    bench.kept.settle(bench.step)
    assert (bench.kept.saved_step, bench.newest()) == (10, 10)


class LateToEnd(threading.Thread):
    """Ends between the second look at it, the first of `Safekeeping.save`, and the third."""

    num_looks = 0

    def is_alive(self) -> bool:
        self.num_looks += 1
        return self.num_looks <= 2 or super().is_alive()


def test_write_that_ends_between_two_looks_is_taken_for_one_that_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", LateToEnd)
    for step in (1, 2, 3):
        bench.train(1)
        bench.save()
        while any(thread.name == f"checkpoint-{step}" for thread in threading.enumerate()):
            time.sleep(0.001)
    bench.kept.settle(bench.step)
    assert (bench.kept.num_left_out, bench.newest()) == (1, 3)


def test_checkpoint_due_while_another_is_written_is_left_out(
    bench: Bench, gate: threading.Event
) -> None:
    for _ in range(3):
        bench.train(10)
        bench.save()
    writing = [t.name for t in threading.enumerate() if t.name.startswith("checkpoint-")]
    assert writing == ["checkpoint-10"]
    gate.set()
    bench.kept.settle(bench.step)
    assert (bench.newest(), bench.kept.num_left_out) == (10, 2)
    assert bench.kept.report() == {
        "left out": "2 checkpoints, while the one before was still being written"
    }


def test_last_checkpoint_waits_for_the_one_before(bench: Bench, gate: threading.Event) -> None:
    idled = []

    def idle() -> None:
        idled.append(bench.kept.saved_step)
        gate.set()

    bench.train(10)
    bench.save()
    bench.train(1)
    bench.kept.save_last(bench.step, bench.snapshot, idle)
    bench.kept.settle(bench.step)
    bench.kept.require_saved(11)
    assert (bench.newest(), bench.kept.num_left_out) == (11, 0)
    assert idled and set(idled) == {-1}


def test_disk_that_never_answers_is_waited_for_no_longer_than_the_deadline(
    bench: Bench, gate: threading.Event
) -> None:
    bench.train(10)
    bench.save()
    bench.kept.deadline_seconds = 0.05
    with pytest.raises(StorageError, match=r"of step 10 is still being written after 0\.05 s"):
        bench.kept.settle(bench.step)


def test_same_step_is_written_once(bench: Bench) -> None:
    bench.train(10)
    assert bench.saved() == 10
    bench.save()
    bench.kept.save_last(bench.step, bench.snapshot, lambda: None)
    assert bench.kept.num_saved == 1


def test_rows_are_on_disk_before_their_checkpoint_has_its_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.flushed(10)
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    log_file = os.stat(bench.folder.log).st_ino

    def watched_fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == log_file:
            assert bench.rows() == 20
            done.append("rows")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        done.append(Path(target).name)
        replace(source, target)

    bench.train(10)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    bench.saved()
    assert done == ["rows", "checkpoint-000000020.pt.sha256", "checkpoint-000000020.pt"]


def test_mistake_in_the_payload_is_raised_and_not_taken_for_a_bad_disk(bench: Bench) -> None:
    bench.train(1)
    bench.kept.save(1, lambda: ({"bad": object()}, lambda: None))
    with pytest.raises(TypeError, match="cannot hold object"):
        bench.kept.settle(1)


@contextmanager
def deleted(folder: Path) -> Iterator[None]:
    """The whole run's folder is away for a while."""
    away = folder.parent.with_name("away")
    folder.parent.rename(away)
    try:
        yield
    finally:
        away.rename(folder.parent)


@contextmanager
def of_another_run(folder: Path) -> Iterator[None]:
    """Another run has begun in the run's folder, which somebody had deleted."""
    with deleted(folder):
        other = RunFolder.open(folder.parent, resume=False)
        (other.path / "lock").write_text("process 1 on host elsewhere\n")
        yield
        assert [path.name for path in other.path.iterdir()] == ["lock"]
        other.close()
        shutil.rmtree(folder.parent)


FAULTS: dict[str, tuple[Callable[[Path], AbstractContextManager[None]], str]] = {
    "full": (lambda folder: largest_file(100_000), "File too large"),
    "read only": (read_only, "Permission denied"),
    "in the way": (replaced_by_a_file, "File exists|Not a directory"),
    "gone": (deleted, "No such file or directory"),
    "of another run": (of_another_run, "the run's folder was replaced"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_checkpoint_that_fails_is_told_once_and_tried_again_when_one_is_due(
    bench: Bench, fault: Callable[[Path], AbstractContextManager[None]], reason: str
) -> None:
    bench.train(10)
    assert bench.saved() == 10
    with fault(bench.folder.checkpoints):
        for _ in range(3):
            bench.train(10)
            bench.save()
            bench.kept.settle(bench.step)
    assert bench.newest() == 10
    (told,) = [line for line in bench.said if "the checkpoint of" in line]
    assert re.fullmatch(
        rf"warning: the checkpoint of step 20 could not be written \((the log before it: )?"
        rf"({reason})\): training goes on, (there is no checkpoint|the newest one is of step 10), "
        r"the next is a new try",
        told,
    )
    bench.train(10)
    assert bench.saved() == 50
    assert bench.said[-1] == "checkpoints are written again, the first is of step 50; 3 failed"
    bench.log.flush()
    assert bench.rows() == 50
    assert [text[:25] for text in bench.events("checkpoint failed")] == [
        f"the checkpoint of step {step}" for step in (20, 30, 40)
    ]
    told_at_the_end = bench.kept.report()["failed checkpoints"]
    assert re.fullmatch(rf"3 of 5 \(.*({reason})\); the newest one is of step 50", told_at_the_end)


def test_rows_that_could_not_be_written_wait_and_come_later(bench: Bench) -> None:
    bench.flushed(10)
    with largest_file(0):
        bench.train(10)
        bench.save()
        bench.train(3000)
        bench.save()
        assert bench.rows() == 10
    assert bench.saved() == 3020
    assert bench.rows() == 3020
    assert [line for line in bench.said if "log.h5" in line] == [
        f"warning: {bench.log.path} could not be written (File too large): training goes on, its "
        "rows are kept for another try",
        f"{bench.log.path} is written again, no row is missing",
    ]
    assert bench.kept.report()["failed log writes"] == "2 (File too large); no row is missing"


def full_disk(*arguments: Any) -> int:
    raise OSError(28, "No space left on device")


def test_no_checkpoint_without_the_rows_before_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.train(10)
    assert bench.saved() == 10
    bench.train(10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk)
        assert bench.saved() == 10
    assert "(the log before it: No space left on device)" in bench.said[-1]
    assert bench.rows() == 10
    assert bench.saved() == 20
    assert bench.rows() == 20


def test_last_checkpoint_is_written_though_the_log_cannot_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.flushed(10)
    bench.train(10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk)
        bench.kept.save_last(bench.step, bench.snapshot, lambda: None)
        bench.kept.settle(bench.step)
    bench.kept.require_saved(20)
    assert (bench.newest(), bench.rows()) == (20, 10)


def test_failed_last_checkpoint_says_what_there_is_instead(bench: Bench) -> None:
    bench.train(10)
    bench.saved()
    bench.train(5)
    with largest_file(100_000):
        bench.kept.save_last(bench.step, bench.snapshot, lambda: None)
        bench.kept.settle(bench.step)
    words = r"at step 15, .* \(File too large\): the newest one is of step 10; .* --resume"
    with pytest.raises(StorageError, match=words):
        bench.kept.require_saved(15)


def test_rows_whose_sync_failed_are_written_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    bench.train(10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lost)
        bench.save()
        bench.kept.settle(bench.step)
    assert not list(bench.folder.path.glob("checkpoints/*"))
    inode = os.stat(bench.folder.log).st_ino
    bench.train(10)
    assert bench.saved() == 20
    assert os.stat(bench.folder.log).st_ino != inode
    assert bench.rows() == 20


def test_deleted_log_is_written_anew_as_a_whole(bench: Bench) -> None:
    bench.flushed(10)
    bench.folder.log.unlink()
    bench.train(10)
    assert bench.saved() == 20
    assert bench.rows() == 20


def test_real_full_disk_costs_nothing_once_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", kilobytes=2000) as disk:
        bench = Bench(disk / "run")
        bench.train(10)
        assert bench.saved() == 10
        filler = fill(disk, leave=40_000)
        bench.train(10)
        assert bench.saved() == 10
        bench.train(3000)
        assert bench.saved() == 10
        filler.unlink()
        bench.train(1)
        assert bench.saved() == 3021
        assert bench.rows() == 3021
        bench.close()
