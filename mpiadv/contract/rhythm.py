"""When to wait for the next version rather than work. Knows no clock: it is told the time."""

from collections import deque
from itertools import pairwise
from math import inf
from statistics import median

SHARE_WORTH_WAITING = 0.75
"""Of a step, for a rank without time to spare. In simulations with 7 attackers for a demand of
7.4, half a step served short broadcasts best and a whole one long ones; this served both."""


class Rhythm:
    """When the next version is to be expected, from those that came; times are in seconds."""

    def __init__(self) -> None:
        self._published: deque[float] = deque(maxlen=6)
        self._expected = inf

    def arrived(self, published: float, now: float) -> None:
        """Book the arrival of a version; `published` may be told by another clock than `now`."""
        self._published.append(published)
        gaps = [later - earlier for earlier, later in pairwise(self._published)]
        # The median, as an evaluation of the trainer is no part of the rhythm.
        self._expected = now + median(gaps) if gaps else inf

    def rewards_patience(self, step_seconds: float, now: float, *, patient: bool) -> bool:
        """Whether to wait for the next version, rather than begin an attack step of that length.

        A `patient` rank, which has time to spare, waits for a version that is due within the step.
        For another the wait must be shorter than the step by more, as it costs crafting time. A
        version that is late by more is not waited for.
        """
        worth_while = step_seconds if patient else SHARE_WORTH_WAITING * step_seconds
        return abs(self._expected - now) < worth_while
