"""Evaluations of a study's networks: the programs that make them, and what they found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mpiadv.process.programs import python_module
from mpiadv.settings import code_words
from mpiadv.storage.small_files import read_small
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError)
_MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of the network of a run, on so many test images, under attacks each by itself.

    `part` tells it from others of the same network; `settings` are those in which it is evaluated
    otherwise than it was trained.
    """

    run: str
    part: str
    attacks: tuple[str, ...]
    num_images: int
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.run}-{self.part}"


def missing(folder: StudyFolder, wanted: Sequence[Evaluation]) -> list[Program]:
    """Those whose run is finished, and whose results are not there yet."""
    return [
        _program(folder, each)
        for each in wanted
        if folder.is_done(each.run) and results_of(folder, each) is None
    ]


def results_of(folder: StudyFolder, each: Evaluation) -> dict[str, Any] | None:
    """The results for the network as it is now; None where there are none."""
    try:
        path = folder.path / "evaluations" / each.name / "evaluation.json"
        results: dict[str, Any] = json.loads(read_small(path, _MOST_BYTES))
        is_current = results["settings"]["model_hash"] == folder.hash_of(each.run)
        return results if is_current else None
    except _UNREADABLE:
        return None


def _program(folder: StudyFolder, each: Evaluation) -> Program:
    output = folder.path / "evaluations" / each.name
    output.parent.mkdir(exist_ok=True)
    attacks = [word for attack in each.attacks for word in ("--attack", attack)]
    return Program(
        name=each.name,
        command=(
            *python_module("mpiadv.cli"), "evaluate", str(folder.folder_of(each.run)), *attacks,
            "--samples", str(each.num_images), "--each-alone", "--no-probe", "--overwrite",
            "--output", str(output), *each.settings, *code_words(folder.request.config),
        ),
        output=output.with_suffix(".txt"),
    )  # fmt: skip


def over_seeds(values: Sequence[float | None]) -> str:
    """Mean, and the lowest and highest where there are several."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    mean = f"{fmean(there):.2f}"
    return mean if len(there) == 1 else f"{mean} ({min(there):.1f} to {max(there):.1f})"
