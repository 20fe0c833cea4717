"""Batches attacked again during real runs: the figures are the model's own, whoever measures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from end_to_end import NUM_STEPS, TINY, Finished, Start, staleness

RANKS = (1, 3)

SYNCHRONOUS = staleness(0, 0, 1)
CASES = {
    "synchronous": (1, SYNCHRONOUS),
    "refreshed": (4, staleness(16, 4, 4)),
    "half_clean": (1, (*SYNCHRONOUS, "objective.clean_fraction=0.5")),
    "batch_norm_and_dropout": (
        1, (*SYNCHRONOUS, "model.name=small_models:batch_norm", "attack.batch_norm=train"),
    ),
    "batch_norm_in_evaluation_mode": (
        1, (*SYNCHRONOUS, "model.name=small_models:batch_norm", "data.crop_padding=1"),
    ),
    "last_steps_on_the_trainer": (
        2, (*staleness(12, 1, 2, 2), "model.name=small_models:batch_norm"),
    ),
}  # fmt: skip
"""Case to `log.fresh_every` and the other overrides."""

FRESH_AS_TRAINED = ("synchronous", "batch_norm_and_dropout", "batch_norm_in_evaluation_mode")
"""Cases whose batches were crafted on the very parameters that a probe uses."""

UNWATCHED = ("refreshed", "batch_norm_and_dropout")
RESUMED = "refreshed"


def starts(folder: Path) -> Iterator[Start]:
    """Each case on one rank and on three, some without probes, and a run that is resumed."""
    for case, (every, overrides) in CASES.items():
        argv = (*TINY, *overrides)
        for ranks in RANKS:
            with_probes = (*argv, f"log.fresh_every={every}")
            yield Start(folder=f"{case}-on-{ranks}", ranks=ranks, argv=with_probes)
        if case in UNWATCHED:
            yield Start(folder=f"{case}-unwatched", ranks=1, argv=argv)
    every, overrides = CASES[RESUMED]
    argv = (*TINY, *overrides, f"log.fresh_every={every}", "--resume")
    yield Start(folder="resumed", ranks=3, argv=argv, stop_after=12)
    yield Start(folder="resumed", ranks=1, argv=argv)


def fresh_of(folder: Path, name: str) -> dict[int, npt.NDArray[Any]]:
    """The rows of `/fresh` by step; each step has at most one."""
    rows = Finished(path=folder / name).table("fresh")
    by_step = {int(row["step"]): row for row in rows}
    assert len(by_step) == len(rows)
    return by_step


def assert_same_figures(
    ours: dict[int, npt.NDArray[Any]], theirs: dict[int, npt.NDArray[Any]]
) -> None:
    assert ours and set(ours) <= set(theirs)
    for step, row in ours.items():
        for column in ("accuracy", "loss"):
            assert row[column] == theirs[step][column], (step, column)


@pytest.mark.parametrize("case", CASES)
def test_figures_are_the_same_whoever_measures(runs: Path, case: str) -> None:
    every, _ = CASES[case]
    alone, together = (fresh_of(runs, f"{case}-on-{ranks}") for ranks in RANKS)
    assert list(alone) == list(range(0, NUM_STEPS, every))
    assert {int(row["rank"]) for row in alone.values()} == {0}
    for step, row in together.items():
        assert row["rank"] == 1 + step // every % 2
    assert_same_figures(together, alone)
    assert all(row["seconds"] > 0 for row in (*alone.values(), *together.values()))


@pytest.mark.parametrize("case", CASES)
def test_probes_leave_the_trained_bits(runs: Path, case: str) -> None:
    names = [f"{case}-on-{ranks}" for ranks in RANKS]
    names += [f"{case}-unwatched"] * (case in UNWATCHED)
    assert len({Finished(path=runs / name).hash for name in names}) == 1


@pytest.mark.parametrize("case", FRESH_AS_TRAINED)
def test_without_staleness_fresh_figures_are_those_of_training(runs: Path, case: str) -> None:
    train = Finished(path=runs / f"{case}-on-1").table("train")
    fresh = Finished(path=runs / f"{case}-on-1").table("fresh")
    assert np.array_equal(fresh["accuracy"], train["accuracy"])
    assert np.allclose(fresh["loss"], train["loss"], rtol=1e-6, atol=0)


def test_adversarial_part_alone_counts_where_a_part_stays_natural(runs: Path) -> None:
    train = Finished(path=runs / "half_clean-on-1").table("train")
    fresh = Finished(path=runs / "half_clean-on-1").table("fresh")
    assert np.array_equal(fresh["accuracy"], train["accuracy"])
    # The objective, over the natural half as well, is lower.
    assert fresh["loss"][-5:].mean() > train["loss"][-5:].mean()
    assert set(16 * fresh["accuracy"]) <= set(range(17))


def test_fresh_attacks_are_stronger_than_stale_ones(runs: Path) -> None:
    train = Finished(path=runs / "refreshed-on-1").table("train")
    fresh = Finished(path=runs / "refreshed-on-1").table("fresh")
    assert fresh["loss"].mean() > train["loss"][fresh["step"]].mean()


def test_resumed_run_has_the_figures_of_an_undisturbed_one_once(runs: Path) -> None:
    resumed = fresh_of(runs, "resumed")
    assert max(resumed) == 16
    assert_same_figures(resumed, fresh_of(runs, f"{RESUMED}-on-1"))
