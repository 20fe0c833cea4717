"""The file of scores: a row for each network under each attack. Knows no torch and no study.

Plain h5py reads it: `h5py.File("scores.h5")["scores"][:]`; each column's unit or meaning is the
attribute `unit:COLUMN` of the table. Every addition writes the whole file anew, under a lock, so
that several processes may add to it and a killed one leaves it as it was.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpiadv.contract.columns import column
from mpiadv.runlog.row_files import RowFile
from mpiadv.runlog.rows import Rows, layout_of


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """An attack to make and networks to judge it.

    Attributes:
        source: name of the run on whose network the examples are made.
        targets: names of the runs whose networks classify them; `source` itself for a white box.
        split: "test" or "train".
        attack_steps: steps of PGD, each of the configuration's relative step size.
        num_images: so many images, by `choose_samples`; more than there are means all.
    """

    source: str
    targets: tuple[str, ...]
    split: str
    attack_steps: int
    num_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """A network judged on examples that were made on a network."""

    target: str = column("S64", "run whose network classifies the examples")
    source: str = column("S64", "run on whose network the examples are made")
    split: str = column("S8", "test or train: which images")
    attack_steps: int = column("i4", "steps of PGD with a random start")
    norm: str = column("S8", "norm of the attack's ball")
    epsilon: float = column("f8", "radius of the attack's ball, pixels of [0, 1]")
    step_size: float = column("f8", "step size of the attack, pixels of [0, 1]")
    images_wanted: int = column("i8", "images asked for; fewer than all are the same ones always")
    num_images: int = column("i8", "images that were attacked")
    natural_accuracy: float = column("f8", "of the target on natural images, 0 to 1")
    adversarial_accuracy: float = column("f8", "of the target on the examples, 0 to 1")
    natural_loss: float = column("f8", "cross-entropy on natural images, mean")
    adversarial_loss: float = column("f8", "cross-entropy on the examples, mean")
    precision: str = column("S16", "of the networks")
    seed: int = column("i8", "of the random starts")
    batch_size: int = column("i8", "images per random start's stream")
    target_hash: str = column("S64", "SHA-256 of the target's network")
    source_hash: str = column("S64", "SHA-256 of the source's network")
    seconds: float = column("f8", "seconds: attack, and its share of all targets")


_FILE = RowFile(name="scores", layout=layout_of(ScoreRow, 256), remedy="they are computed again")
KEY = (
    "target", "source", "target_hash", "source_hash", "split", "attack_steps", "images_wanted",
)  # fmt: skip
"""Columns that tell one score from another."""


def select(rows: Rows, kept: Sequence[bool]) -> Rows:
    """The rows for which `kept` is true."""
    chosen: Rows = rows[np.array(kept, bool)]
    return chosen


def key_of(scoring: Scoring, target: str, hashes: Mapping[str, str]) -> tuple[Any, ...]:
    """The `KEY` of one target's score, as `keys` gives those of a file; `hashes` by run."""
    ends = (target, scoring.source)
    attack = (scoring.split, scoring.attack_steps, scoring.num_images)
    return (*ends, *(hashes[name] for name in ends), *attack)


def keys(rows: Rows) -> set[tuple[Any, ...]]:
    """The `KEY` columns of every row."""
    columns = [[_plain(value) for value in rows[name].tolist()] for name in KEY]
    return set(zip(*columns, strict=True))


def read_scores(path: Path) -> Rows:
    """All rows; none where there is no file.

    Raises:
        UserError: the file is damaged, or of another format.
    """
    return _FILE.read(path)


def add_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Add rows to the file, in place of older ones with the same key."""
    with locked(path.with_name(f"{path.name}.lock")):
        added = _FILE.rows(rows)
        kept = _without(read_scores(path), keys(added))
        _FILE.write(path, np.concatenate([kept, added]))


def _without(rows: Rows, gone: set[tuple[Any, ...]]) -> Rows:
    kept = [keys(rows[place : place + 1]).isdisjoint(gone) for place in range(len(rows))]
    return select(rows, kept)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within this, no other process that asks for the same lock file is."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _plain(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
