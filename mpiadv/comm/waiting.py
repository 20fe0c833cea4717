"""Waiting with back-off and a deadline. Blocking calls would keep signal handlers from running."""

import time
from collections.abc import Callable

from mpiadv.process.errors import DeadlineError

SHORTEST_SLEEP_SECONDS = 0.0001
SHORT_SLEEP_SECONDS = 0.001
LONGEST_SLEEP_SECONDS = 0.005
SLEPT_SHARE, LONG_SLEPT_SHARE = 0.05, 0.005
"""A sleep is this share of the wait so far, so a message that ends a wait is noticed hardly late;
one of more than `SHORT_SLEEP_SECONDS` the smaller share. A look at messages between two sleeps
takes 50 us and more: who has nothing to do for long is to leave the cores to others. What takes
several messages is late by a sleep for each."""


LONGEST_COUNTED_SHARE = 0.1
"""Between two pauses a rank only looks at its messages. What takes longer than this share of the
deadline was no waiting: the rank itself was stopped, and nobody else is to blame."""


class Wait:
    """One wait after another: `pause` while nothing happens, `over` when something did."""

    def __init__(
        self,
        deadline_seconds: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._sleep = sleep
        self._paused: float | None = None
        self._waited = 0.0

    def pause(self, describe: Callable[[], str]) -> None:
        """Sleep a moment.

        Raises:
            DeadlineError: nothing has happened for `deadline_seconds`; `describe` says for what.
        """
        now = self._clock()
        if self._paused is not None:
            longest = LONGEST_COUNTED_SHARE * self._deadline_seconds
            self._waited += min(now - self._paused, longest)
        self._paused = now
        if self._waited > self._deadline_seconds:
            raise DeadlineError(
                f"waited {self._deadline_seconds:g} s for {describe()}: the other side is dead, "
                "stuck or slower than deadline_seconds allows"
            )
        short = min(SLEPT_SHARE * self._waited, SHORT_SLEEP_SECONDS)
        long = min(LONG_SLEPT_SHARE * self._waited, LONGEST_SLEEP_SECONDS)
        self._sleep(max(SHORTEST_SLEEP_SECONDS, short, long))

    def over(self) -> None:
        """Something happened: the next pause begins a new wait."""
        self._paused, self._waited = None, 0.0
