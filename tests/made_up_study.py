"""Folders of studies whose runs and scores are made up, for tests that draw and tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sample_logs import NUM_STEPS, begin, write_steps

from mpiadv.studies.folder import StudyFolder, open_folder
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.runs import request_of
from mpiadv.studies.scores import ScoreRow, add_scores
from mpiadv.studies.studies import STUDIES


def open_study(path: Path, name: str, *words: str, preset: str = "smoke") -> StudyFolder:
    """A study's folder, with nothing trained in it."""
    request = request_of(name, preset, PRESETS[preset], words)
    return open_folder(path, request, STUDIES[name].runs(request))


def finish_runs(folder: StudyFolder) -> None:
    """Finish every run; its network's hash is `hash of NAME`."""
    for run in folder.runs:
        path = folder.folder_of(run.name)
        sections = folder.config_of(run).model_dump(mode="json")
        with begin(path, **sections) as log:
            write_steps(log, 0, NUM_STEPS)
            log.event("end", f"hash hash of {run.name}", NUM_STEPS)
        (path / "model.pt").write_text("made up")
        (path / "DONE").write_text("done\n")


def score_row(target: str, source: str, **changed: Any) -> ScoreRow:
    """A score of 1,000 test images."""
    values: Mapping[str, Any] = {
        "split": "test", "attack_steps": 1, "norm": "linf", "epsilon": 0.3, "step_size": 0.1,
        "images_wanted": 1000, "num_images": 1000, "natural_accuracy": 0.98,
        "adversarial_accuracy": 0.9, "natural_loss": 0.1, "adversarial_loss": 0.4,
        "precision": "float32", "seed": 0, "batch_size": 100, "target_hash": f"hash of {target}",
        "source_hash": f"hash of {source}", "seconds": 1.0,
    }  # fmt: skip
    return ScoreRow(target=target, source=source, **{**values, **changed})


def add(folder: StudyFolder, *rows: ScoreRow) -> None:
    """Add scores to a study."""
    add_scores(folder.scores_path, rows)
