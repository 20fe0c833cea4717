"""The file of scores: nothing lost, nothing twice, readable by h5py alone."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up_study import add, finish_runs, open_study, score_row

from mpiadv.process.errors import UserError
from mpiadv.studies.scores import ScoreRow, Scoring, add_scores, read_scores


def test_scores_are_a_table_with_units(tmp_path: Path) -> None:
    add_scores(tmp_path / "scores.h5", [score_row("k1", "k4", attack_steps=4)])
    with h5py.File(tmp_path / "scores.h5") as file:
        table = file["scores"]
        assert table[0]["target"] == b"k1" and table[0]["attack_steps"] == 4
        units = [table.attrs[f"unit:{name}"] for name in table.dtype.names]
    assert len(units) == len(ScoreRow.__slots__) and all(units)


def test_scores_add_up_and_take_the_place_of_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "scores.h5"
    add_scores(path, [score_row("k1", "k1"), score_row("k4", "k4")])
    add_scores(path, [score_row("k1", "k1", adversarial_accuracy=0.5)])
    add_scores(path, [score_row("k1", "k1", images_wanted=200)])
    rows = read_scores(path)
    assert [(row["target"], row["adversarial_accuracy"], row["images_wanted"]) for row in rows] == [
        (b"k4", 0.9, 1000), (b"k1", 0.5, 1000), (b"k1", 0.9, 200),
    ]  # fmt: skip


def test_failed_addition_leaves_the_scores_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.h5"
    add_scores(path, [score_row("k1", "k1")])
    before = path.read_bytes()

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full_disk)
    with pytest.raises(OSError, match="no space"):
        add_scores(path, [score_row("k4", "k4")])
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "no_table", "newer"])
def test_damaged_scores_are_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "scores.h5"
    add_scores(path, [score_row("k1", "k1")])
    if damage == "text":
        path.write_text("not HDF5")
    else:
        with h5py.File(path, "r+") as file:
            if damage == "no_table":
                del file["scores"]
            else:
                file.attrs["format_version"] = 99
    with pytest.raises(UserError, match="move it away") as refusal:
        read_scores(path)
    assert "\n" not in str(refusal.value)


def test_only_what_is_trained_and_not_scored_is_to_be_done(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power", "study.training_steps=[1,4,8]")
    finish_runs(folder)
    (folder.folder_of("k8") / "DONE").unlink()
    wanted = [
        Scoring(source=source, targets=("k1", "k4", "k8"), split="test", attack_steps=1,
                num_images=1000)
        for source in ("k1", "k8")
    ]  # fmt: skip
    (left,) = folder.missing(wanted)
    assert (left.source, left.targets) == ("k1", ("k1", "k4"))
    add(folder, score_row("k1", "k1"))
    (left,) = folder.missing(wanted)
    assert left.targets == ("k4",)
    add(folder, score_row("k4", "k1"))
    assert folder.missing(wanted) == []


def test_scores_of_networks_that_are_no_more_count_nowhere(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power")
    finish_runs(folder)
    add(folder, score_row("k1", "k1"), score_row("k4", "k4", target_hash="older"),
        score_row("gone", "gone"))  # fmt: skip
    np.testing.assert_array_equal(folder.scores()["target"], [b"k1"])
    (missing,) = folder.missing(
        [Scoring(source="k4", targets=("k4",), split="test", attack_steps=1, num_images=1000)]
    )
    assert missing.source == "k4"
