"""The folder of a study: what it belongs to, where its runs lie and how they ended. No torch."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mpiadv.process.errors import UserError
from mpiadv.report.reading import DIVERGED, Log, read_log, text
from mpiadv.runlog.rows import Rows
from mpiadv.settings import Config, parse_config
from mpiadv.settings.dotted_keys import flatten, nested
from mpiadv.settings.yaml_files import dump_yaml, parse_yaml
from mpiadv.storage.run_folder import LOG_NAME, RunState, state_of
from mpiadv.storage.small_files import read_small
from mpiadv.storage.whole_files import write_text
from mpiadv.studies.runs import Request, Run, configuration, require_consistent
from mpiadv.studies.scores import Scoring, key_of, keys, locked, read_scores, select

NEEDED_FOR_REUSE = ("log.", "evaluation.")
"""Settings that do not change a network, but what its log holds."""

_RUN_FILES = (LOG_NAME, "model.pt", "DONE")


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """A study on disk: what was asked for, and what is there of it by now."""

    path: Path
    request: Request
    runs: tuple[Run, ...]

    @property
    def ranges(self) -> Mapping[str, Any]:
        """The study's own settings."""
        return self.request.ranges

    @property
    def scores_path(self) -> Path:
        """The file of scores."""
        return self.path / "scores.h5"

    def folder_of(self, name: str) -> Path:
        """The folder of a run."""
        return self.path / "runs" / name

    def config_of(self, run: Run) -> Config:
        """The configuration of a run."""
        return configuration(self.request, run, str(self.folder_of(run.name)))

    def is_done(self, name: str) -> bool:
        """Whether a run is finished."""
        return state_of(self.folder_of(name)) is RunState.FINISHED

    def has_log(self, name: str) -> bool:
        """Whether a run has a log, be it readable or not."""
        return (self.folder_of(name) / LOG_NAME).exists()

    def has_diverged(self, name: str) -> bool:
        """Whether a run ended because its loss stopped being a number: a result, too."""
        log = self.log(name)
        return log is not None and log.condition == DIVERGED

    def log(self, name: str, *, snapshots: bool = False) -> Log | None:
        """The log of a run, in whatever state; None where there is none that can be read."""
        try:
            return read_log(self.folder_of(name), snapshots=snapshots)
        except UserError:
            return None

    def hash_of(self, name: str) -> str:
        """The hash of a finished run's network; empty where the run is not finished."""
        log = self.log(name) if self.is_done(name) else None
        return log.hash if log else ""

    def scores(self) -> Rows:
        """The rows of `scores.h5` that are of the networks as they are now."""
        rows = read_scores(self.scores_path)
        current = {run.name: self.hash_of(run.name) for run in self.runs}
        kept = [
            all(current.get(text(row[end])) == text(row[f"{end}_hash"]) for end in _ENDS)
            for row in rows
        ]
        return select(rows, kept)

    def missing(self, wanted: Sequence[Scoring]) -> list[Scoring]:
        """What of `wanted` can be scored, as its runs are finished, and is not yet."""
        known = keys(read_scores(self.scores_path))
        hashes = {run.name: self.hash_of(run.name) for run in self.runs}
        left = [part for scoring in wanted for part in _left_of(scoring, hashes, known)]
        return list(dict.fromkeys(left))


_ENDS = ("target", "source")


def open_folder(path: Path, request: Request, runs: Sequence[Run]) -> StudyFolder:
    """Create a study's folder, or find it; it must be of the same study, preset and changes.

    Raises:
        UserError: it is of another one, or a run in it is of other settings, or it cannot be made.
    """
    require_consistent(request, runs)
    folder = StudyFolder(path=path, request=request, runs=tuple(runs))
    for run in runs:
        folder.config_of(run)  # refuses what does not fit before anything is written
    try:
        (path / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror}: choose another with "
                        "--output FOLDER") from None  # fmt: skip
    # The tasks of a job array begin at the same instant.
    with locked(path / "study.yaml.lock"):
        _require_same_study(path / "study.yaml", request)
    for run in runs:
        _require_same_settings(folder, run)
    return folder


def reuse(folder: StudyFolder, other: Path) -> list[str]:
    """Copy from another study the finished runs of the same settings; the names of ours.

    Runs whose speed is measured are left out: the other study may be of another machine.

    Raises:
        UserError: `other` is no study's folder.
    """
    if not os.path.isdir(other / "runs"):
        raise UserError(f"--reuse {other}: expected the folder of a study: it holds no runs")
    finished = dict(_finished(other))
    taken = []
    for run in folder.runs:
        if run.is_alone:
            continue
        settings = _settings(folder.config_of(run))
        for path, theirs in finished.items():
            if theirs == settings and not folder.has_log(run.name):
                _copy(path, folder.folder_of(run.name))
                taken.append(run.name)
                break
    return taken


def _left_of(
    scoring: Scoring, hashes: Mapping[str, str], known: set[tuple[Any, ...]]
) -> Iterator[Scoring]:
    targets = tuple(
        name
        for name in scoring.targets
        if hashes[name] and key_of(scoring, name, hashes) not in known
    )
    if hashes[scoring.source] and targets:
        yield replace(scoring, targets=targets)


def _require_same_study(path: Path, request: Request) -> None:
    ours = {"study": request.study, "preset": request.preset, "changes": dict(request.changes)}
    if not os.path.exists(path) or not any(path.parent.glob("**/*.h5")):
        # What was refused before it began must not stand in the way of what is right.
        write_text(path, dump_yaml(ours))
        return
    try:
        theirs = parse_yaml(read_small(path).decode())
        told = [_told(theirs), _told(ours)]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: choose another folder with --output FOLDER") from None
    if theirs != ours:
        raise UserError(
            f"{path.parent} holds study {told[0]}, asked for is {told[1]}: "
            "choose another folder with --output FOLDER"
        )


def _told(study: Mapping[str, Any]) -> str:
    changes = " ".join(f"{key}={value}" for key, value in study["changes"].items())
    return f"{study['study']} --preset {study['preset']} {changes}".strip()


def _require_same_settings(folder: StudyFolder, run: Run) -> None:
    log = folder.log(run.name)
    if log is None:
        return
    held = _config_of(log).identity()
    for key, ours in folder.config_of(run).identity().items():
        if held[key] != ours:
            raise UserError(
                f"{folder.folder_of(run.name)} holds a run with {key}={held[key]}, this study has "
                f"{key}={ours}: choose another folder with --output FOLDER"
            )


def _finished(study: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The finished, whole runs of a study that this version understands, with their settings."""
    for path in sorted((study / "runs").iterdir()):
        if not all(os.path.isfile(path / name) for name in _RUN_FILES):
            continue
        try:
            yield path, _settings(_config_of(read_log(path, snapshots=False)))
        except UserError:
            continue


def _config_of(log: Log) -> Config:
    """The configuration in a log; settings that are newer than it have their defaults."""
    return parse_config(nested(log.config))


def _settings(config: Config) -> dict[str, Any]:
    flat = flatten(config.model_dump(mode="json"))
    recorded = {key: value for key, value in flat.items() if key.startswith(NEEDED_FOR_REUSE)}
    return {**recorded, **config.identity()}


def _copy(source: Path, target: Path) -> None:
    """Copy a finished run without its checkpoints; the marker that it is done comes last."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _RUN_FILES:
        partial = target / f"{name}.tmp"
        shutil.copyfile(source / name, partial)
        partial.replace(target / name)
