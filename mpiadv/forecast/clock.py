"""Virtual time, and what is to happen when. Pure."""

import heapq
from collections.abc import Callable
from itertools import count


class Clock:
    """Events in the order of their times; those of one time in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._number = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def __bool__(self) -> bool:
        """Whether anything is left to happen."""
        return bool(self._events)

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Have something happen; what is late already, now."""
        heapq.heappush(self._events, (max(time, self.now), next(self._number), event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.at(self.now + seconds, event)

    def advance(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()
