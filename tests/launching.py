"""Runs for tests on the parts of `bad_parts`, mostly launched, and what they left on disk."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi_runner import HERE, finished, started

import mpiadv
from mpiadv.runlog import read_table

_FAST = {
    "data.name": "bad_parts:images",
    "data.batch_size": 4,
    "model.name": "bad_parts:small",
    "attack.num_steps": 2,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "training.num_steps": 60,
    "training.device": "cpu",
    "evaluation.every_steps": 0,
    "evaluation.num_steps": 1,
    "evaluation.batch_size": 8,
    "log.natural_every": 0,
    "log.flush_seconds": 0.1,
    "deadline_seconds": 20,
}


def words_of(output: Path, **settings: Any) -> list[str]:
    """The command line of a run whose steps take a millisecond or two; `a__b` sets `a.b`."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return [f"{key}={value}" for key, value in {**_FAST, "output": output, **given}.items()]


@contextmanager
def launched(
    words: Sequence[str], *, ranks: int, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`mpiadv launch` in a session of its own, all of which is ended at the end."""
    line = [sys.executable, "-m", "mpiadv.cli", "launch", "-n", str(ranks), *words]
    with started(line, cwd=HERE, env=env) as process:
        yield process


def launch(
    words: Sequence[str], *, ranks: int, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`mpiadv launch` to its end."""
    with launched(words, ranks=ranks) as process:
        return finished(process, timeout=timeout)


def train_alone(words: Sequence[str], *, resume: bool = False) -> str:
    """Train, or go on, in this process, as one rank that nothing disturbs; the model's hash."""
    return mpiadv.train(mpiadv.load_config(overrides=words), resume=resume).hash


def hash_alone(output: Path, **settings: Any) -> str:
    """The hash of a whole run of `words_of` in this process."""
    return train_alone(words_of(output, **settings))


def train_rows(output: Path) -> npt.NDArray[Any]:
    """The log's rows of training steps."""
    return np.asarray(read_table(output / "log.h5", "train"))


def hash_of(output: Path) -> str:
    """The hash of the trained model of a finished run."""
    events = read_table(output / "log.h5", "events")
    (text,) = [event["text"].decode() for event in events if event["kind"] == b"end"]
    return str(text.removeprefix("hash "))
