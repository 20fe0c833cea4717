"""What the user sees while attacks run: a progress bar, or plain lines when piped."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mpiadv.evaluation.survivors import Progress as Place

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""


class Follower:
    """Follows one rank's attacks; use as a context manager, and print nothing else meanwhile."""

    def __init__(
        self, console: Console, *, num_ranks: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = console
        self._among = f" of rank 0 of {num_ranks}" if num_ranks > 1 else ""
        self._clock = clock
        self._said = clock()
        self._bar = (
            Progress(BarColumn(bar_width=20), TextColumn("{task.fields[text]}"), console=console)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> "Follower":
        if self._bar is not None:
            self._bar.add_task("", total=None, text="")
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, place: Place) -> None:
        """Take in where the rank is."""
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], total=place.num_batches, completed=place.batch,
                text=self._text(place),
            )  # fmt: skip
        elif self._clock() - self._said > PLAIN_SECONDS:
            self._said = self._clock()
            self._console.print(self._text(place), highlight=False, markup=False, soft_wrap=True)

    def _text(self, place: Place) -> str:
        restart = f", try {place.number + 1}" if place.number else ""
        return (
            f"batch {place.batch + 1}/{place.num_batches}{self._among}: {place.title}{restart}, "
            f"{place.num_standing} images standing"
        )
