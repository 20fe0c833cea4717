"""A log in memory, and what its attributes mean. Knows no torch and no MPI, and computes nothing.

Logs may be of running, finished, interrupted, resumed or killed runs, and lack the columns that
were added since: numbers are NaN there.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import yaml

from mpiadv.process.errors import UserError, printable
from mpiadv.runlog import opened
from mpiadv.runlog.rows import END_EVENTS, LAYOUTS, TEST, Rows, fitted
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.yaml_files import parse_yaml
from mpiadv.storage.run_folder import LOG_NAME, RAW, RunState, state_of

Floats = npt.NDArray[np.float64]

DIVERGED = "diverged"
"""Condition of a run that ended as its loss stopped being a number."""

_NEEDED_COLUMNS = ("step", "rank", "wall_clock")
_MOST_SNAPSHOTS = 10
_MOST_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """Some of the snapshots, evenly spread over the run.

    Attributes:
        steps: int64 [T], training steps done before each.
        images: float32 [T, N, C, H, W] in [0, 1], the same test images attacked each time.
        originals: float32 [N, C, H, W], the images before the attack.
        num_taken: how many the log holds.
    """

    steps: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    originals: npt.NDArray[np.float32]
    num_taken: int


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log as it was when it was read.

    Attributes:
        label: what to call the run in figures: its folder's name, or its file's.
        config: the newest start's configuration, flat: `training.num_steps` and so on.
        attributes: of the file; where a resume said otherwise, what the newest said.
        ranks: number of ranks of the first start and of each resume.
    """

    path: Path
    label: str
    state: RunState
    config: Mapping[str, Any]
    attributes: Mapping[str, Any]
    ranks: tuple[int, ...]
    train: Rows
    evaluations: Rows
    """Of all weights, on whatever images."""
    events: Rows
    snapshots: Snapshots | None
    fresh: Rows
    """Training batches attacked again with current parameters."""
    crafted: Rows
    """A row for each ticket that was trained on, with who crafted it, and for how long."""

    trainers: frozenset[int] = frozenset([0])
    """The ranks that have trained, at any start."""

    @property
    def num_steps(self) -> int:
        """Training steps done."""
        return int(self.train["step"][-1]) + 1 if len(self.train) else 0

    @property
    def planned_steps(self) -> int | None:
        """Training steps of the whole run; None where the configuration does not tell."""
        planned = self.config.get("training.num_steps")
        return planned if isinstance(planned, int) else None

    @property
    def resumes(self) -> list[int]:
        """Training steps done at each resume, in order, each once."""
        return sorted({int(row["step"]) for row in self.events_of("resume")})

    @cached_property
    def evaluation(self) -> Rows:
        """Evaluations of the weights as trained, on test images."""
        return self.evaluations_of(RAW)

    def evaluations_of(self, weights: str, images: str = TEST) -> Rows:
        """Evaluations of the weights of that name, on such images; older logs have no names."""
        rows = self.evaluations
        is_of = np.isin(rows["weights"], [weights.encode(), *([b""] if weights == RAW else [])])
        is_on = np.isin(rows["images"], [images.encode(), *([b""] if images == TEST else [])])
        found: Rows = rows[is_of & is_on]
        return found

    @property
    def hash(self) -> str:
        """The final model's hash; empty as long as the run has not ended."""
        return self.hash_of(RAW)

    def hash_of(self, weights: str) -> str:
        """That of the model with the weights of that name; empty where there is none, too."""
        ends = self.events_of(END_EVENTS[weights])
        return text(ends[-1]["text"]).removeprefix("hash ") if len(ends) else ""

    def events_of(self, kind: str) -> Rows:
        """The events of a kind: `start`, `resume`, `end`, ..."""
        found: Rows = self.events[self.events["kind"] == kind.encode()]
        return found

    def column(self, name: str) -> Floats:
        """A column of `/train`: float64 [rows]."""
        return np.asarray(self.train[name], np.float64)

    @property
    def condition(self) -> str:
        if self.state is RunState.STOPPED and len(self.events):
            kind = text(self.events[-1]["kind"])
            return kind if kind in ("interrupted", "overfitted", DIVERGED) else "stopped"
        if self.state is RunState.UNKNOWN and self.hash:
            return "finished"
        return self.state.value


def find_log(given: str | Path) -> Path:
    """The log at a path, or in the run's folder at that path.

    Raises:
        UserError: there is none.
    """
    path = Path(given)
    log = path / LOG_NAME if os.path.isdir(path) else path
    if not os.path.isfile(log):
        lacking = f"there is no log at {path}" if log is path else f"{path} holds no {LOG_NAME}"
        raise UserError(f"{lacking}: give a run's folder, or a log")
    return log


def read_log(given: str | Path, *, snapshots: bool = True) -> Log:
    """Read a log, or that of a run's folder, also while the run writes it.

    Raises:
        UserError: there is none, it cannot be read, or another version of mpiadv wrote it.
    """
    path = find_log(given)
    # Before the rows: they are the last ones where the run is finished.
    state = state_of(path.parent) if path.name == LOG_NAME else RunState.UNKNOWN
    with opened(path) as file:
        return _read(path, state, file, snapshots)


def read_snapshots(log: Log, *, num_images: int) -> Snapshots | None:
    """Every snapshot of a log, of its first `num_images` images; None where it holds none.

    Raises:
        UserError: the log cannot be read any more.
    """
    with opened(log.path) as file:
        return _snapshots(file, len(file.get("snapshots", ())), num_images)


def text(value: bytes | str) -> str:
    """A cell of text, as a terminal or a page may show it: what would steer one is spelt out."""
    return printable(_text(value))


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> Any:
    """The same with all texts in it as `text` gives them."""
    if isinstance(value, dict):
        return {text(str(key)): _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return text(value) if isinstance(value, bytes | str) else value


def _read(path: Path, state: RunState, file: h5py.File, snapshots: bool) -> Log:
    starts = starts_of(file)
    attributes = {key: value for start in starts for key, value in start.items()}
    config = flat_config(path, attributes.get("config", ""))
    tables = {name: _table(path, file, name) for name in ("train", "events", "fresh")}
    tickets = _table(path, file, "tickets")
    return Log(
        path=path,
        label=text(path.resolve().parent.name if path.name == LOG_NAME else path.stem),
        state=state,
        config=config,
        attributes=_shown(attributes),
        ranks=tuple(int(start["ranks"]) for start in starts if "ranks" in start),
        snapshots=_snapshots(file, _MOST_SNAPSHOTS, _MOST_IMAGES) if snapshots else None,
        evaluations=_table(path, file, "evaluation"),
        crafted=tickets if len(tickets) else tables["train"],
        trainers=frozenset(rank for start in starts for rank in _trainers(start)),
        **tables,
    )


def _trainers(start: Mapping[str, Any]) -> list[int]:
    """The ranks that trained in a start of the run; rank 0 alone where it does not tell."""
    told = text(start.get("trainers", "0"))
    return [int(rank) for rank in told.split(",") if rank.isdecimal()] or [0]


def starts_of(file: h5py.File) -> list[dict[str, Any]]:
    """What the first start of the run, and each resume, said of itself."""
    resumes = file.get("resumes", {})
    return [dict(file.attrs), *(dict(resumes[name].attrs) for name in sorted(resumes))]


def _table(path: Path, file: h5py.File, name: str) -> Rows:
    if name in ("fresh", "tickets") and name not in file:  # in a log from before that
        return np.empty(0, LAYOUTS[name].dtype)
    if name not in file or not file[name].dtype.names:
        raise UserError(f"{path} is not a log of mpiadv: it has no table {name}")
    rows: Rows = file[name][:]
    lacking = [key for key in _NEEDED_COLUMNS if key not in (rows.dtype.names or ())]
    if name == "train" and lacking:
        raise UserError(f"{path} is not a log of mpiadv: its table train has no {lacking[0]}")
    return fitted(rows, LAYOUTS[name])


def flat_config(path: Path, written: Any) -> dict[str, Any]:
    """A configuration as a log holds it, flat: `training.num_steps` and so on."""
    try:
        tree = _shown(parse_yaml(_text(written)))
    except yaml.YAMLError:
        raise UserError(f"{path} is damaged: its configuration is not YAML") from None
    return flatten(tree) if isinstance(tree, dict) else {}


def _snapshots(file: h5py.File, most: int, num_images: int) -> Snapshots | None:
    """At most `most` snapshots, of at most `num_images` images: all of them may be gigabytes."""
    table, originals = file.get("snapshots", ()), file.get("snapshot_originals", ())
    if not len(table) or not len(originals):  # which older logs lack
        return None
    count = min(len(table), most)
    chosen = [table[row] for row in np.linspace(0, len(table) - 1, count).round().astype(int)]
    return Snapshots(
        steps=np.array([row["step"] for row in chosen], np.int64),
        images=np.stack([row["images"][:num_images] for row in chosen]),
        originals=originals[0]["images"][:num_images],
        num_taken=len(table),
    )
