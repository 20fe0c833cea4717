"""Every configuration of `configs/methods`: the same bits everywhere, and those of a plain loop."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end import (
    HERE,
    TINY,
    Finished,
    Start,
    assert_same_bits,
    settled,
    staleness,
)
from mpi_runner import REPOSITORY
from plain_methods import METHODS, REPLAYED, SHORT, STEPS
from plain_training import Hashes, train_plainly

import mpiadv
from mpiadv.settings import Config, load_config

pytestmark = pytest.mark.long

NAMES = [*METHODS, *REPLAYED]
FOLDER = REPOSITORY / "configs" / "methods"
RANKS = (3, 2, 1)
SOURCE = "source"
"""The run that another one attacks."""
KILLED_AFTER = random.Random(0).sample(range(6, STEPS - 1), 6)
ONE_STEP = {"fast", "fast_l2", "nfgsm", "grad_align", "ensemble"}
"""Whose only step is left to those who craft."""


def words_of(folder: Path, name: str, *rule: str) -> tuple[str, ...]:
    number = 360 if name == "recipe" else 160  # of which 200 are held out
    words = (
        *TINY, f"training.num_steps={STEPS}", f"data.train_samples={number}",
        "checkpoint.every_steps=4", "average.decay=0.9",
    )  # fmt: skip
    source = (f"attack.sources=[{folder}/{SOURCE}]",) if name == "ensemble" else ()
    return (*settled([*words, *SHORT.get(name, ()), *source]), *rule)


def refreshed(folder: Path, name: str) -> tuple[str, ...]:
    trainer_steps = 0 if name in ONE_STEP else trainer_steps_of(name)[-1]
    return words_of(folder, name, *staleness(8, 2, 2, trainer_steps))


def trainer_steps_of(name: str) -> tuple[int, ...]:
    """None and one; all five where training steps attack."""
    return (5,) if name in REPLAYED else (0, 1)


def start_of(name: str, folder: str, ranks: int, words: tuple[str, ...]) -> Start:
    return Start(folder=folder, ranks=ranks, argv=(str(FOLDER / f"{name}.yaml"), *words))


def prepare(folder: Path) -> None:
    """Train the run that others attack, and kill one of each method."""
    words = settled([*words_of(folder, "pgd"), "seed=1", f"output={folder / SOURCE}"])
    mpiadv.train(load_config(FOLDER / "pgd.yaml", words))
    _kill(folder)


def starts(folder: Path) -> list[Start]:
    """Each method's runs, the killed ones resumed."""
    made = []
    for number, name in enumerate(NAMES):
        for trainer_steps in trainer_steps_of(name):
            words = words_of(folder, name, *staleness(0, 0, 1, trainer_steps))
            made.append(start_of(name, f"{name}-synchronous-{trainer_steps}", 1, words))
        for ranks in RANKS:
            made.append(start_of(name, f"{name}-on-{ranks}", ranks, refreshed(folder, name)))
        resumed = (*refreshed(folder, name), "--resume")
        made.append(start_of(name, f"{name}-killed", 2 + number % 2, resumed))
    return made


def _kill(folder: Path) -> None:
    """Leave in `NAME-killed` what a `kill -9` leaves of each run."""
    plan = [
        (
            str(FOLDER / f"{name}.yaml"),
            [*refreshed(folder, name), f"output={folder}/{name}-killed"],
            KILLED_AFTER[number % len(KILLED_AFTER)],
        )
        for number, name in enumerate(NAMES)
    ]
    path = folder / "killed.json"
    path.write_text(json.dumps(plan))
    line = [sys.executable, str(HERE / "killed_runs.py"), str(path)]
    completed = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=HERE)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def run_in(folder: Path, name: str) -> Finished:
    return Finished(path=folder / name)


def test_table_has_every_configuration() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_the_same_for_any_number_of_ranks_and_after_a_kill(runs: Path, name: str) -> None:
    alone = run_in(runs, f"{name}-on-1")
    for other in (*(f"{name}-on-{ranks}" for ranks in RANKS), f"{name}-killed"):
        run = run_in(runs, other)
        assert run.codes == [[0] * len(run.codes[0])]
        assert_same_bits(run, alone)
        assert run.ema_hash == alone.ema_hash
        assert (
            run.table("train")["attack_tau"].tolist() == alone.table("train")["attack_tau"].tolist()
        )
    kinds = run_in(runs, f"{name}-killed").table("events")["kind"].tolist()
    assert kinds.count(b"resume") == 1


def test_methods_train_to_bits_of_their_own(runs: Path) -> None:
    hashes = {name: run_in(runs, f"{name}-on-1").hash for name in NAMES}
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.mark.parametrize("name", NAMES)
def test_synchronous_run_equals_a_plain_loop(runs: Path, name: str) -> None:
    config = load_config(
        FOLDER / f"{name}.yaml",
        list(words_of(runs, name, *staleness(0, 0, 1, trainer_steps_of(name)[-1]))),
    )
    expected = _plainly(config, name)
    for trainer_steps in trainer_steps_of(name):
        run = run_in(runs, f"{name}-synchronous-{trainer_steps}")
        assert (run.hash, run.ema_hash) == expected, trainer_steps


def _plainly(config: Config, name: str) -> Hashes:
    if name in REPLAYED:
        return REPLAYED[name](config)
    return train_plainly(config, METHODS[name])
