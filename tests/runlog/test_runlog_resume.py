"""A log that is gone on with: cut back exactly, moved aside where it cannot be read."""

import os
import signal
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flip_bits import flipped, gone_on_with
from plain_logs import (
    attacker_row,
    begin,
    evaluation_row,
    fresh_row,
    resume,
    train_rows,
    write_steps,
)
from sample_logs import finished_run

import mpiadv
from mpiadv.process.errors import UserError
from mpiadv.runlog import TRIAL, read_attributes, read_table
from mpiadv.runlog.rows import Rows
from mpiadv.runlog.trial import Trial


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


BITS = range(5, 8 * 8192, 8 * 8192 // 20)
"""Spread over the first 8 KiB of a log, where HDF5 keeps what is where; by hand `flip_bits.py`."""


def test_log_with_a_flipped_bit_is_gone_on_with_or_moved_aside(tmp_path: Path) -> None:
    content = (finished_run(tmp_path / "run") / "log.h5").read_bytes()
    ends = Counter(gone_on_with(tmp_path / "log.h5", flipped(content, bit), TRIAL) for bit in BITS)
    assert ends["went on"] > 2 and ends["cannot be read"] > 2
    assert sum(ends.values()) == len(BITS)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11"),
        ("os._exit(3)", "failed with exit code 3"),
        ("time.sleep(60)", "came to no end within 1 s"),
        ("raise MemoryError", "MemoryError"),
    ],
)
def test_whatever_reading_a_log_does_it_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, told: str
) -> None:
    """A module in the place of h5py's stands for what the library does with a damaged file."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "h5py.py").write_text(LIBRARY.format(trouble=trouble))
    path = tmp_path / "log.h5"
    begin(path).close()
    trial = Trial(silence_seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(mpiadv, "__file__", str(_linked_package(tmp_path / "modules")))
        with pytest.warns(UserWarning, match=rf"could not be read \(.*{told}.*moved to log.h5.dam"):
            resume(path, 100, trial=trial).close()
    trial.close()
    assert list(read_table(path, "events")["kind"]) == [b"resume"]


LIBRARY = """
import os, signal, time

class File:
    def __init__(self, *words, **options):
        {trouble}

def string_dtype(encoding, length):
    return "S%d" % length

Dataset = Group = int
"""


def _linked_package(folder: Path) -> Path:
    """The package in another folder, which comes first on the path of the process that reads."""
    (folder / "mpiadv").symlink_to(Path(mpiadv.__file__).parent)
    return folder / "mpiadv" / "__init__.py"


def test_requests_to_end_say_nothing_about_a_log(tmp_path: Path) -> None:
    path, trial = tmp_path / "log.h5", Trial()
    begin(path).close()
    trial.require_readable(path)
    assert trial._process is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        trial._process.send_signal(number)
        trial.require_readable(path)
    trial._process.kill()
    trial.close()
    with resume(path, 0, trial=trial) as log:
        log.event("kind", "text", 0)
    trial.close()


def test_resume_without_a_checkpoint_keeps_the_steps_there_were(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        log.event("kind", "text", 0)
    resume(path, None).close()
    assert b"kind" in read_table(path, "events")["kind"]
    with resume(path, None) as log:
        write_steps(log, 0, 3)
    with pytest.warns(UserWarning, match=r"holds 3 steps, .*: moved to log\.h5\.old-1, a new log"):
        resume(path, None).close()
    assert len(read_table(path, "train")) == 0
    assert len(read_table(tmp_path / "log.h5.old-1", "train")) == 3


def test_log_from_before_a_column_was_added_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with begin(path) as log:
        write_steps(log, 0, 10)
    with h5py.File(path, "r+") as file:
        older = repack(file["train"][:], drop=("loss", "rank"))
        del file["train"]
        file.create_dataset("train", data=older)
    with resume(path, 8) as log:
        write_steps(log, 8, 10)
    train = read_table(path, "train")
    assert np.isnan(train["loss"][:8]).all() and (train["loss"][8:] == 2.3).all()
    assert list(train["rank"]) == [0] * 8 + [1] * 2 and list(train["step"]) == list(range(10))


def repack(rows: Rows, drop: tuple[str, ...]) -> Rows:
    names = [name for name in rows.dtype.names or () if name not in drop]
    new = np.zeros(len(rows), [(name, rows.dtype[name]) for name in names])
    for name in names:
        new[name] = rows[name]
    return new


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
