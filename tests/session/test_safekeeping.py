"""Log and checkpoints beside training: never in its way, whatever the disk does."""

import os
import shutil
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from safekeeping_bench import Bench

from mpiadv.process.errors import StorageError
from mpiadv.session import safekeeping
from mpiadv.storage.run_folder import RunFolder


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
    with RunFolder(bench.folder.path, resume=True) as other:
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


class LateToEnd(Future[None]):
    """Ends between the second look at it, the first of `Safekeeping.save`, and the third."""

    num_looks = 0

    def done(self) -> bool:
        self.num_looks += 1
        return self.num_looks > 2 and super().done()


def test_write_that_ends_between_two_looks_is_taken_for_one_that_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safekeeping, "Future", LateToEnd)
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
