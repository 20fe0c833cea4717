"""Whole runs for tests: many of them inside one `mpirun`, and what they left on disk.

Importing torch costs seconds on every rank, a run of 20 steps on digits a fraction of one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from mpi_runner import HERE, mpirun

NUM_STEPS = 20
"""So many that under every rule attack steps use several versions after the first one."""

TINY = (
    f"training.num_steps={NUM_STEPS}", "training.threads=1", "training.device=cpu",
    "model.name=small_models:digits", "data.batch_size=32", "attack.num_steps=5",
    "evaluation.every_steps=0", "evaluation.num_steps=2", "evaluation.batch_size=25",
    "evaluation.final_samples=100", "checkpoint.every_steps=0", "log.natural_every=4",
    "deadline_seconds=60",
)  # fmt: skip
"""Overrides for a run on digits that takes a fraction of a second."""


def settled(words: Sequence[str]) -> list[str]:
    """The words of a command line; of those that set the same, the last one alone."""
    return list({word.partition("=")[0]: word for word in words}.values())


def staleness(largest: int, final: int, every: int, trainer_steps: int = 0) -> tuple[str, ...]:
    """Overrides for a staleness rule."""
    return (
        f"staleness.max_staleness={largest}",
        f"staleness.final_staleness={final}",
        f"staleness.publish_every={every}",
        f"staleness.trainer_steps={trainer_steps}",
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run: `stop_after` interrupts it once so many training steps are done.

    With `hosts` its ranks, all on this machine, take themselves to be on several hosts: a character
    for each of them says which. Unless it `shares_memory` all versions are messages.
    """

    folder: str
    ranks: int
    argv: tuple[str, ...]
    pauses: str = "random"
    stop_after: int | None = None
    hosts: str = ""
    shares_memory: bool = True


def run_all(
    starts: Sequence[Start],
    folder: Path,
    *,
    ranks: int,
    timeout: float,
    btl: str | None = None,
    **further: Any,
) -> None:
    """Make all starts inside one `mpirun`, side by side where ranks are free, in their order.

    Their folders, and `RUN.codes` beside each, lie in `folder` afterwards. `further` words are for
    `mpirun` of `mpi_runner`.
    """
    plan = folder / "plan.json"
    rounds = _side_by_side(starts, ranks)
    plan.write_text(json.dumps([[asdict(start) for start in one] for one in rounds]))
    completed = mpirun(
        ["python", str(HERE / "many_runs.py"), str(plan)],
        ranks=ranks,
        timeout=timeout,
        mca=None if btl is None else {"pml": "ob1", "btl": btl},
        **further,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


def _side_by_side(starts: Sequence[Start], ranks: int) -> list[list[Start]]:
    """Rounds of starts that fit on `ranks` ranks together; those of a folder keep their order."""
    rounds: list[list[Start]] = []
    for start in starts:
        used = [i for i, one in enumerate(rounds) if start.folder in (s.folder for s in one)]
        for one in rounds[max(used, default=-1) + 1 :]:
            if sum(other.ranks for other in one) + start.ranks <= ranks:
                one.append(start)
                break
        else:
            rounds.append([start])
    return rounds


def assert_same_bits(run: "Finished", other: "Finished") -> None:
    """The same steps and the same model, whatever the ranks and the timing."""
    assert first_difference(run, other) == "", run.path.name
    assert run.hash == other.hash, run.path.name


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a finished run left in its folder."""

    path: Path

    @property
    def hash(self) -> str:
        """The hash of the trained model."""
        return self._hash_told(b"end")

    @property
    def ema_hash(self) -> str:
        """The hash of the model with the averaged weights."""
        return self._hash_told(b"ema end")

    @property
    def sharing(self) -> str:
        """Who shared memory with whom."""
        return self._told(b"sharing")

    def _hash_told(self, kind: bytes) -> str:
        return self._told(kind).removeprefix("hash ")

    def _told(self, kind: bytes) -> str:
        """The text of the only event of this kind."""
        (text,) = [event["text"] for event in self.table("events") if event["kind"] == kind]
        return str(text.decode())

    @property
    def codes(self) -> list[list[int]]:
        """The exit codes of the ranks, for each start of the run."""
        written: list[list[int]] = json.loads(Path(f"{self.path}.codes").read_text())
        return written

    def table(self, name: str) -> npt.NDArray[Any]:
        """A table of the log."""
        with h5py.File(self.path / "log.h5", "r") as log:
            return np.asarray(log[name][:])


def laid_out_on(hosts: str) -> str:
    """What the log says last of who lays out versions, on the hosts of a `Start`."""
    leaders = [str(hosts.index(host)) for host in sorted(set(hosts) - {"0"})]
    number = "1 leader (rank" if len(leaders) == 1 else f"{len(leaders)} leaders (ranks"
    return f", laid out by rank 0 and {number} {', '.join(leaders)})"


SAME_FOR_ANY_RANKS = (
    "step", "ticket", "first_version", "last_version", "first_staleness", "last_staleness",
    "attack_steps", "epsilon", "learning_rate", "loss", "accuracy", "natural_accuracy",
    "gradient_magnitude",
)  # fmt: skip
"""The columns of the log's table of training steps that no timing may change."""


def first_difference(run: Finished, other: Finished) -> str:
    """Where two logs part; empty where they are the same."""
    ours, theirs = run.table("train"), other.table("train")
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} training steps"
    for a, b in zip(ours, theirs, strict=True):
        for name in SAME_FOR_ANY_RANKS:
            if not np.array_equal(a[name], b[name], equal_nan=True):
                return (
                    f"step {a['step']}: {name} {a[name]!r}, crafted by rank {a['rank']}, and "
                    f"{b[name]!r}, crafted by rank {b['rank']}"
                )
    return ""
