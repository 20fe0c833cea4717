"""Evaluations of averaged weights stand apart from those of the weights as trained."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from sample_logs import begin, begun_run, evaluation_row, write_steps

from mpiadv.report.reading import read_log
from mpiadv.report.summary import summary_table
from mpiadv.report.training import tested as draw_tested


def test_evaluations_of_an_older_log_are_of_the_weights_as_trained(tmp_path: Path) -> None:
    path = begun_run(tmp_path / "run") / "log.h5"
    with h5py.File(path, "r+") as file:
        rows = file["evaluation"][:]
        names = [name for name in rows.dtype.names if name not in ("weights", "images")]
        del file["evaluation"]
        file["evaluation"] = np.rec.fromarrays([rows[name] for name in names], names=names)
    log = read_log(path)
    assert log.evaluation["step"].tolist() == [20] and len(log.evaluations_of("ema")) == 0
    assert not any("weights" in name for name, *_ in summary_table([log]))


def test_evaluations_of_other_images_are_shown_apart(tmp_path: Path) -> None:
    with begin(tmp_path / "run") as log:
        write_steps(log, 0, 20)
        for images in ("held out", "train"):
            log.evaluation(replace(evaluation_row(20), images=images, natural_accuracy=0.125))
        log.evaluation(replace(evaluation_row(20, "best"), natural_accuracy=0.25))
    read = read_log(tmp_path / "run")
    assert read.evaluation["natural_accuracy"].tolist() == [0.96]
    summary = dict(summary_table([read]))  # type: ignore[arg-type]
    assert summary["natural accuracy, best weights"].startswith("25.00 % ")
    picture = draw_tested(read)
    assert picture is not None
    labels = [line.get_label() for line in picture.figure.axes[0].lines]
    assert labels == ["natural", "PGD-40", "PGD-40, images held out", "PGD-40, training images"]


def test_averaged_weights_are_shown_apart(tmp_path: Path) -> None:
    with begin(tmp_path / "run") as log:
        write_steps(log, 0, 20)
        log.evaluation(replace(evaluation_row(10, "ema"), natural_accuracy=0.125))
    read = read_log(tmp_path / "run")
    assert read.evaluations_of("ema")["step"].tolist() == [10] and read.evaluation[
        "step"
    ].tolist() == [20]
    summary = dict(summary_table([read]))  # type: ignore[arg-type]
    assert summary["natural accuracy, averaged weights"].startswith("12.50 % ")
    assert summary["natural accuracy"].startswith("96.00 % ")
    picture = draw_tested(read)
    assert picture is not None
    labels = [line.get_label() for line in picture.figure.axes[0].lines]
    assert labels == ["natural", "PGD-40", "PGD-40, averaged weights"]
