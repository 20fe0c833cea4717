"""Which batches are decoded ahead of time: those that are needed next. Knows no file."""

from mpiadv.data.source import Indices, Source

MOST_BATCHES = 8
"""Batches decoded ahead; more would only take memory."""


class ReadAhead:
    """Has the batches with the smallest numbers of all that are expected decoded ahead of time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._expected: dict[int, Indices] = {}
        self._begun: set[int] = set()

    def expect(self, number: int, indices: Indices) -> None:
        """Batch `number` will be needed."""
        self._expected[number] = indices
        self._follow()

    def drop(self, number: int) -> None:
        """Batch `number` was taken, or is not needed any more."""
        indices = self._expected.pop(number, None)
        if indices is not None and number in self._begun:
            self._begun.discard(number)
            self._source.forget(indices)
        self._follow()

    def _follow(self) -> None:
        wanted = sorted(self._expected)[:MOST_BATCHES]
        for number in self._begun.difference(wanted):
            self._source.forget(self._expected[number])
        for number in wanted:
            if number not in self._begun:
                self._source.prefetch(self._expected[number], urgency=number)
        self._begun = set(wanted)
