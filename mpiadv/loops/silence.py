"""For how long ranks have been silent, as far as somebody watched. Knows no MPI and no torch."""

from collections.abc import Callable

LOOKS_PER_DEADLINE = 20
"""How often it is looked whether somebody does not answer."""


class Silence:
    """Looks now and then; time in which nobody looked may be time in which all were stopped."""

    def __init__(self, deadline_seconds: float, clock: Callable[[], float]) -> None:
        self._deadline_seconds = deadline_seconds
        self._interval = deadline_seconds / LOOKS_PER_DEADLINE
        self._clock = clock
        self._last_look = clock()
        self._elapsed = 0.0
        self._seconds: dict[int, float] = {}

    def is_due(self) -> bool:
        """Whether it is time for the next look, which begins then."""
        elapsed = self._clock() - self._last_look
        if elapsed < self._interval:
            return False
        self._last_look += elapsed
        self._elapsed = elapsed
        return True

    def is_too_long(self, rank: int, unanswered_seconds: float) -> bool:
        """Whether a rank, that has not answered for so long, was watched as long as it may be."""
        watched = self._seconds.get(rank, 0.0) + min(self._elapsed, 2 * self._interval)
        self._seconds[rank] = min(unanswered_seconds, watched)
        return self._seconds[rank] > self._deadline_seconds
