"""One order of adding for whoever adds: pairs of neighbours, then pairs of pairs. Pure."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class PairwiseSum(Generic[T]):
    """Adds what comes by a balanced binary tree, as a binary counter carries.

    Of `n` values it holds log2(n) + 1 sums at most. Any power of two of neighbours that begin at a
    multiple of it are a branch of the tree: others may add them by themselves.

    `add(left, right)` may use the memory of `left` for the sum.
    """

    def __init__(self, add: Callable[[T, T], T]) -> None:
        self._add = add
        self._branches: list[tuple[int, T]] = []
        """Sums still without a neighbour, with how many values each has; fewer and fewer."""

    def push(self, value: T) -> None:
        """Add the next value."""
        count = 1
        while self._branches and self._branches[-1][0] == count:
            value = self._add(self._branches.pop()[1], value)
            count *= 2
        self._branches.append((count, value))

    def take(self) -> T:
        """The sum of all that came, of which nothing is kept.

        Raises:
            ValueError: they were no power of two.
        """
        if len(self._branches) != 1:
            raise ValueError(
                f"expected 1, 2, 4, ... values, got {sum(n for n, _ in self._branches)}"
            )
        ((_, total),) = self._branches
        self._branches = []
        return total


def pairwise_mean(values: Sequence[float]) -> float:
    """The mean of 1, 2, 4, ... numbers, added in the order of `PairwiseSum`."""
    total = PairwiseSum[float](lambda left, right: left + right)
    for value in values:
        total.push(value)
    return total.take() / len(values)
