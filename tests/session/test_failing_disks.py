"""A disk that is full, read-only, in the way or gone costs what was to be written then, no more."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from disk_faults import fill, largest_file, read_only, replaced_by_a_file, tiny_disk
from safekeeping_bench import Bench

from mpiadv.process.errors import StorageError
from mpiadv.storage.run_folder import RunFolder


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
        other = RunFolder(folder.parent, resume=False)
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
