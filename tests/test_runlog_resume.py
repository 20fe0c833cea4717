"""A log that is gone on with: cut back exactly, moved aside where it cannot be read."""

import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from plain_logs import (
    attacker_row,
    begin,
    evaluation_row,
    fresh_row,
    resume,
    train_rows,
    write_steps,
)

from mpiadv.errors import UserError
from mpiadv.runlog import read_attributes, read_table


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
