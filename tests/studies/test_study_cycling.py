"""Cycling: known signals give their known period, and noise gives none."""

import numpy as np
import pytest

from mpiadv.studies.cycling import PROMINENCE, autocorrelation, find_cycle

SHAPE = (3, 1, 5, 4)
"""Images of a snapshot."""


def moving(period: int, steps: np.ndarray, *, noise: float = 0.0) -> np.ndarray:
    """Perturbations [T, N, C, H, W] that turn in a plane of their own each `period` steps."""
    random = np.random.default_rng(1)
    ends = np.linalg.qr(random.normal(size=(SHAPE[0], 20, 2)))[0]
    angle = 2 * np.pi * steps / period + random.uniform(0, 6, SHAPE[0])[:, None]
    turned = np.einsum("npk,nkt->tnp", ends, np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return (turned + noise * random.normal(size=turned.shape)).reshape(len(steps), *SHAPE)


@pytest.mark.parametrize(("period", "every"), [(40, 5), (120, 10), (36, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.1], ids=["clean", "noisy"])
def test_known_period_is_found(period: int, every: int, noise: float) -> None:
    steps = np.arange(1, 61) * every if every > 1 else np.arange(1, 121)
    cycle = find_cycle(autocorrelation(steps, moving(period, steps, noise=noise)))
    assert cycle is not None and cycle.period is not None and cycle.returning is not None
    assert abs(cycle.half - period / 2) <= max(every, 2)
    assert abs(cycle.period - period) <= max(every, 2)
    assert cycle.lowest < -0.7 and cycle.returning > 0.7


def test_clean_cycle_correlates_as_the_cosine_of_the_lag() -> None:
    steps = np.arange(0, 300, 5)
    found = autocorrelation(steps, moving(50, steps))
    np.testing.assert_allclose(found.similarity, np.cos(2 * np.pi * found.lags / 50), atol=1e-12)
    assert found.lags.tolist() == list(range(0, 150, 5))


def test_constant_perturbations_correlate_fully_at_every_lag() -> None:
    steps = np.arange(0, 100, 10)
    constant = np.broadcast_to(moving(40, steps[:1]), (10, *SHAPE))
    found = autocorrelation(steps, constant)
    np.testing.assert_allclose(found.similarity, 1.0)
    assert find_cycle(found) is None


def test_length_of_perturbations_does_not_matter() -> None:
    steps = np.arange(0, 100, 10)
    signal = moving(40, steps)
    longer = signal * np.linspace(1, 9, len(steps))[:, None, None, None, None]
    one, other = autocorrelation(steps, signal), autocorrelation(steps, longer)
    np.testing.assert_allclose(one.similarity, other.similarity, atol=1e-12)


def test_unrelated_perturbations_show_no_cycle() -> None:
    random = np.random.default_rng(0)
    found = autocorrelation(np.arange(60), random.normal(size=(60, 8, 1, 28, 28)))
    assert np.abs(found.similarity[1:]).max() < PROMINENCE
    assert find_cycle(found) is None


def test_fading_similarity_is_no_cycle() -> None:
    steps = np.arange(60)
    angle = np.arccos(np.exp(-steps / 10.0))
    faded = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None, :]
    assert find_cycle(autocorrelation(steps, faded)) is None


def test_half_a_cycle_within_the_lags_has_no_period_yet() -> None:
    steps = np.arange(0, 160, 10)
    cycle = find_cycle(autocorrelation(steps, moving(100, steps)))
    assert cycle is not None
    assert (cycle.half, cycle.period, cycle.returning) == (50, None, None)


def test_snapshots_at_uneven_steps_are_paired_by_their_distance() -> None:
    steps = np.array([0, 10, 20, 40, 50, 100, 110, 120, 130, 160])
    found = autocorrelation(steps, moving(80, steps))
    np.testing.assert_allclose(found.similarity, np.cos(2 * np.pi * found.lags / 80), atol=1e-12)
    assert set(found.lags.tolist()) <= set(range(0, 90, 10))


@pytest.mark.filterwarnings("error")
def test_lags_of_one_part_of_the_run_are_left_out() -> None:
    steps = np.concatenate([np.arange(0, 400, 6), np.arange(400, 1600, 8)])
    found = autocorrelation(steps, moving(80, steps))
    assert (found.lags % 8 == 0).all()
    cycle = find_cycle(found)
    assert cycle is not None and cycle.period == 80


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf], ids=["zero", "nan", "infinite"])
def test_perturbation_without_a_direction_counts_nowhere(bad: float) -> None:
    steps = np.arange(0, 200, 10)
    spoilt = moving(40, steps)
    spoilt[3, 1] = bad
    spoilt[12:14] = bad
    found = autocorrelation(steps, spoilt)
    np.testing.assert_allclose(found.similarity, np.cos(2 * np.pi * found.lags / 40), atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_times", [1, 2])
def test_too_few_snapshots_show_no_cycle(num_times: int) -> None:
    found = autocorrelation(np.arange(num_times), np.ones((num_times, *SHAPE)))
    assert find_cycle(found) is None
