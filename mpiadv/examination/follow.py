"""What the user sees while attacks run: a progress bar, or plain lines when piped."""

import time
from collections.abc import Callable

from rich.console import Console

from mpiadv.evaluation.report import say
from mpiadv.evaluation.survivors import Progress as Place
from mpiadv.process.words import duration
from mpiadv.session.display import PLAIN_SECONDS, ProgressLine


class Follower:
    """Follows one rank's attacks; use as a context manager, and print nothing else meanwhile."""

    def __init__(
        self, console: Console, *, num_ranks: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = console
        self._among = (f"rank 0 of {num_ranks}",) if num_ranks > 1 else ()
        self._clock = clock
        self._began = self._said = clock()
        self._bar: ProgressLine | None = None

    def __enter__(self) -> "Follower":
        if self._console.is_terminal:
            self._bar = ProgressLine(self._console, by_itself=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, place: Place) -> None:
        always = f"batch {place.batch + 1}/{place.num_batches}  left {self._left(place)}"
        attack = f"{place.title}{f', try {place.number + 1}' if place.number else ''}"
        more = (attack, f"{place.num_standing} images standing", *self._among)
        if self._bar is not None:
            self._bar.show(place.batch, place.num_batches, always, more)
        elif self._clock() - self._said > PLAIN_SECONDS:
            self._said = self._clock()
            say(self._console, "  ".join([always, *more]))

    def _left(self, place: Place) -> str:
        """Time for the batches that are not done; a dash while none is."""
        if place.batch == 0:
            return "-"
        elapsed = self._clock() - self._began
        return duration(elapsed / place.batch * (place.num_batches - place.batch))
