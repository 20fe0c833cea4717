"""One order of adding: against a tree written as a recursion, and in parts that others add."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from mpiadv.contract.pairwise import PairwiseSum, pairwise_mean

FLOATS = st.floats(-1e30, 1e30)


def by_recursion(values: list[float]) -> float:
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return by_recursion(values[:half]) + by_recursion(values[half:])


def added(values: list[float]) -> float:
    total = PairwiseSum[float](lambda left, right: left + right)
    for value in values:
        total.push(value)
    return total.take()


@examples(200)
@given(st.integers(0, 5), st.data())
def test_sum_is_that_of_a_balanced_tree(height: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(FLOATS, min_size=2**height, max_size=2**height))
    assert added(values) == by_recursion(values)
    assert pairwise_mean(values) == by_recursion(values) / len(values)


@examples(200)
@given(st.integers(1, 3), st.data())
def test_parts_that_others_add_give_the_same_sum(height: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(FLOATS, min_size=8, max_size=8))
    size = 2**height
    parts = [added(values[start : start + size]) for start in range(0, 8, size)]
    assert added(parts) == added(values)


def test_few_sums_are_held() -> None:
    total = PairwiseSum[int](lambda left, right: left + right)
    for number in range(1, 65):
        total.push(1)
        assert len(total._branches) <= number.bit_length()
    assert total.take() == 64


@pytest.mark.parametrize("count", [0, 3, 6])
def test_sum_of_another_number_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"expected 1, 2, 4, \.\.\. values, got {count}"):
        added([1.0] * count)
