"""Claims about how an attacker's idle time is divided."""

import pytest

from mpiadv.loops.idleness import Idleness


@pytest.mark.parametrize(
    ("blocked", "on_their_way", "parameters", "trainer"),
    [(5.0, 2.0, 2.0, 3.0), (1.0, 4.0, 1.0, 0.0), (5.0, -0.1, 0.0, 5.0), (0.0, 2.0, 0.0, 0.0)],
    ids=["part of the wait", "published before the wait", "clocks disagree", "was not waiting"],
)
def test_only_parameters_on_their_way_count_as_wait_for_them(
    blocked: float, on_their_way: float, parameters: float, trainer: float
) -> None:
    idleness = Idleness()
    idleness.blocked(blocked)
    idleness.parameters_arrived(on_their_way)
    assert (idleness.parameters, idleness.trainer) == (parameters, trainer)


def test_a_wait_is_counted_once() -> None:
    idleness = Idleness()
    idleness.without_ticket(1.0)
    idleness.blocked(3.0)
    idleness.parameters_arrived(1.0)
    before = Idleness(grant=1.0, trainer=2.0, parameters=1.0)
    assert idleness == before
    idleness.parameters_arrived(1.0)
    assert idleness.since(before) == Idleness()
