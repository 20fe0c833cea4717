"""When the next version is expected, and whether it is worth waiting for."""

import pytest

from mpiadv.contract.craft_queue import Rhythm


def rhythm(*published: float, lag: float = 0.5) -> Rhythm:
    """Versions published at these times, each on its way for `lag`."""
    rhythm = Rhythm()
    for time in published:
        rhythm.arrived(time, time + lag)
    return rhythm


@pytest.mark.parametrize(
    ("now", "own", "patient"),
    [
        (30.5, False, False),
        (36.0, False, False),
        (37.0, False, True),
        (39.0, True, True),
        (40.5, True, True),
        (42.0, True, True),
        (44.0, False, True),
        (45.0, False, False),
    ],
    ids=["arrived", "early", "coming", "soon", "now", "late", "later", "too_late"],
)
def test_patience_is_rewarded_while_the_next_version_is_due(
    now: float, own: bool, patient: bool
) -> None:
    steady = rhythm(0.0, 10.0, 20.0, 30.0)
    assert steady.rewards_patience(4.0, now, patient=False) == own
    assert steady.rewards_patience(4.0, now, patient=True) == patient


def test_one_long_pause_is_no_part_of_the_rhythm() -> None:
    paused = rhythm(0.0, 10.0, 500.0, 510.0, 520.0)
    assert paused.rewards_patience(1.0, 530.5, patient=True)


def test_rhythm_expects_nothing_before_the_second_version() -> None:
    assert not rhythm(0.0).rewards_patience(1000.0, 1.0, patient=True)


def test_rhythm_needs_no_common_clock() -> None:
    skewed = Rhythm()
    for time in (0.0, 10.0, 20.0):
        skewed.arrived(time - 3600.0, time)
    assert skewed.rewards_patience(1.0, 30.0, patient=True)
