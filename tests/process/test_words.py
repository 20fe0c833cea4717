"""Numbers and tables as people read them."""

from math import inf, nan

import pytest

from mpiadv.process.words import aligned, counted, duration, percent

DURATIONS = {
    0.4: "0:00", 61: "1:01", 3725: "1:02:05", 86_400: "1 d 0:00:00", 180_005: "2 d 2:00:05",
    nan: "-", inf: "-",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "told"), DURATIONS.items())
def test_durations_are_told_in_minutes_and_larger_units_where_there_are_any(
    seconds: float, told: str
) -> None:
    assert duration(seconds) == told


COUNTS = {
    (0, "rank"): "0 ranks", (1, "rank"): "1 rank", (1024, "rank"): "1,024 ranks",
    (1, "class"): "1 class", (2, "class"): "2 classes",
}  # fmt: skip


@pytest.mark.parametrize(("given", "told"), COUNTS.items())
def test_things_are_counted_in_the_plural_but_for_one(given: tuple[int, str], told: str) -> None:
    assert counted(*given) == told


def test_share_that_is_not_known_is_a_dash() -> None:
    assert (percent(0.1234), percent(nan)) == ("12.3 %", "-")


def test_names_stand_to_the_left_and_figures_to_the_right() -> None:
    rows = [("who", "what", "s"), ("trainer", "a", "10"), ("me", "bcd", "")]
    assert aligned(rows, num_names=2) == ["who      what   s", "trainer  a     10", "me       bcd"]
