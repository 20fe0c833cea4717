"""Staleness studies whose runs are made up: collapsing, diverged, unfinished, cycling ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from made_up_study import open_study
from sample_logs import SHAPE, begin, evaluation_row, train_row

from mpiadv.report.drawing import Picture
from mpiadv.report.drawing import style as drawing_style
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.results import Results, Table
from mpiadv.studies.staleness import show
from mpiadv.studies.staleness_runs import State

NUM_STEPS = 60
WORDS = (
    "study.staleness=[0,4,16]", "study.max_staleness=[16]", "study.final_staleness=[0,4]",
    "study.learning_rates=[0.005,0.02]", "study.map_staleness=[0,16]",
)  # fmt: skip
FIGURES = [
    "accuracy-by-staleness", "stale-and-fresh", "perturbations", "autocorrelation",
    "refreshed-attacks", "staleness-and-learning-rate",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A run as its log shall tell it."""

    adversarial: float = 0.8
    natural: float = 0.96
    state: State = State.FINISHED
    period: int | None = None
    """Of the cycle of its perturbations, training steps."""
    fresh: float | None = None


def write_run(folder: StudyFolder, name: str, made_up: MadeUp) -> Path:
    """Write the log of a run of the study; a diverged or unfinished one stops half way."""
    (run,) = [run for run in folder.runs if run.name == name]
    path = folder.folder_of(name)
    is_whole = made_up.state is State.FINISHED
    with begin(path, **folder.config_of(run).model_dump(mode="json")) as log:
        originals = np.full(SHAPE, 0.5, np.float32)
        for step in range(NUM_STEPS if is_whole else NUM_STEPS // 2):
            log.train(train_row(step))
            log.snapshot(step + 1, originals + _change(step + 1, made_up), originals=originals)
            if step + 1 in (20, NUM_STEPS):
                accuracies = {
                    "adversarial_accuracy": made_up.adversarial,
                    "natural_accuracy": made_up.natural,
                }
                log.evaluation(replace(evaluation_row(step + 1), **accuracies))
        if made_up.state is State.DIVERGED:
            log.event("diverged", "the training loss is nan", NUM_STEPS // 2)
        if is_whole:
            log.event("end", f"hash hash of {name}", NUM_STEPS)
    if is_whole:
        (path / "DONE").write_text("done\n")
    else:
        (path / "lock").write_text("")
    return path


def _change(step: int, made_up: MadeUp) -> np.ndarray:
    """A perturbation that turns, or stays."""
    angle = 2 * np.pi * step / made_up.period if made_up.period else 0.0
    change = np.zeros(SHAPE, np.float32)
    change[:, 0, 0, 0], change[:, 0, 3, 3] = 0.3 * np.cos(angle), 0.3 * np.sin(angle)
    return change


def write_fresh(path: Path, accuracies: Sequence[float]) -> None:
    """Add a table of fresh accuracies, one every step, as a run does."""
    columns = [
        ("step", "i8"),
        ("rank", "i4"),
        ("accuracy", "f8"),
        ("loss", "f8"),
        ("seconds", "f8"),
    ]
    rows = np.zeros(len(accuracies), columns)
    rows["step"], rows["accuracy"] = np.arange(len(accuracies)), accuracies
    with h5py.File(path / "log.h5", "r+") as file:
        if "fresh" in file:
            del file["fresh"]
        file["fresh"] = rows


def study(path: Path, runs: Mapping[str, MadeUp]) -> StudyFolder:
    folder = open_study(path, "staleness", *WORDS)
    for name, made_up in runs.items():
        write_run(folder, name, made_up)
    return folder


def drawn(folder: StudyFolder) -> Results:
    with drawing_style():
        return show(folder)


def picture_of(results: Results, name: str) -> Picture:
    (found,) = [p for p in results.parts if isinstance(p, Picture) and p.name == name]
    return found


def table_of(results: Results, title: str) -> Table:
    (found,) = [p for p in results.parts if isinstance(p, Table) and p.title == title]
    return found
