"""What the user sees while work goes on: a bar and words on one line, or plain lines when piped."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mpiadv.contract.accounts import StepRecord
from mpiadv.process.words import duration, percent

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""

TERMINAL_WIDTH = "MPIADV_TERMINAL_WIDTH"
"""Set by a launcher whose terminal lies behind a pipe: columns of the terminal."""

WIDEST_BAR, NARROWEST_BAR = 20, 4

_GAP = "  "


class Average:
    """A running average over the last hundred values or so; NaN counts as no value."""

    def __init__(self, weight: float = 0.02) -> None:
        self._weight = weight
        self._sum = 0.0
        self._total = 0.0

    def add(self, value: float) -> None:
        if isnan(value):
            return
        self._sum += self._weight * (value - self._sum)
        self._total += self._weight * (1.0 - self._total)

    @property
    def value(self) -> float:
        """The average; NaN before the first value."""
        return self._sum / self._total if self._total else float("nan")


class Display:
    """Follows training; `close` before printing anything else."""

    def __init__(
        self,
        *,
        first_step: int,
        num_steps: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._num_steps = num_steps
        self._clock = clock
        self._began = self._said = clock()
        self._first_step = first_step
        self._loss, self._accuracy, self._natural = Average(), Average(), Average(0.1)
        self._step_seconds, self._wait_seconds = Average(), Average()
        self._console = console_for(stream or sys.stdout)
        self._bar = ProgressLine(self._console) if self._console.is_terminal else None
        if self._bar is not None:
            self._bar.show(first_step, num_steps, f"{first_step}/{num_steps}  left -")

    def step(self, record: StepRecord) -> None:
        self._loss.add(record.outcome.loss)
        self._accuracy.add(record.outcome.accuracy)
        self._natural.add(record.report.natural_accuracy)
        self._step_seconds.add(record.total_seconds)
        self._wait_seconds.add(record.wait_seconds)
        done, num_steps, now = record.step + 1, self._num_steps, self._clock()
        always = f"{done}/{num_steps}  left {self._left(done)}"
        if self._bar is not None:
            if now - self._said > 0.2 or done == num_steps:
                self._said = now
                self._bar.show(done, num_steps, always, self._words(record))
        elif now - self._said > PLAIN_SECONDS or record.step == self._first_step:
            self._said = now
            self.say("  ".join([f"step {always}", *self._words(record)]))

    def evaluation(self) -> Callable[[int, int], None]:
        """Follows an evaluation that begins now, told the batches done and how many there are."""
        began = said = self._clock()

        def tell(done: int, of: int) -> None:
            nonlocal said
            now = self._clock()
            if now - said > PLAIN_SECONDS and done < of:
                said, left = now, duration((now - began) / done * (of - done))
                self.say(f"evaluated {done} of {of} batches  left {left}")

        return tell

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _words(self, record: StepRecord) -> list[str]:
        """What there is to tell, first what is missed most where it does not fit."""
        seconds = max(self._step_seconds.value, 1e-9)
        return [
            f"loss {self._loss.value:.3f}",
            f"adversarial {percent(self._accuracy.value)}",
            f"{1.0 / seconds:.1f} steps/s",
            f"natural {percent(self._natural.value)}",
            f"staleness {record.origin.first_staleness} to {record.origin.last_staleness}",
            f"trainer waits {percent(self._wait_seconds.value / seconds)}",
        ]

    def _left(self, done: int) -> str:
        elapsed = self._clock() - self._began
        return duration(elapsed / max(1, done - self._first_step) * (self._num_steps - done))


def console_for(stream: TextIO) -> Console:
    """A console on `stream`, which knows whether a person watches.

    Under mpirun `isatty` says nothing: Open MPI gives rank 0 a terminal of its own even when its
    output ends in a file.
    """
    width = os.environ.get(TERMINAL_WIDTH, "")
    if width.isdigit():
        return Console(file=stream, force_terminal=True, width=int(width))
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return Console(file=stream, force_terminal=False)
    return Console(file=stream)


class ProgressLine:
    """The line while work goes on; `stop` before anything but the console itself prints.

    It is drawn whenever something is shown, or with `by_itself` ten times a second: then showing
    costs nothing, and a thread draws.
    """

    def __init__(self, console: Console, *, by_itself: bool = False) -> None:
        self._by_itself = by_itself
        begun = _Line(None, 0, "", ())
        self._live = Live(begun, console=console, auto_refresh=by_itself, refresh_per_second=10)
        self._live.start(refresh=True)

    def show(self, done: int, total: int, always: str, more: Sequence[str] = ()) -> None:
        """Tell how far it has come: what is shown `always`, and the words that fit beside it."""
        self._live.update(_Line(total, done, always, more), refresh=not self._by_itself)

    def stop(self) -> None:
        """Leave it as it is, and go on below."""
        self._live.stop()


@dataclass(frozen=True)
class _Line:
    """A bar and words, those first that would be missed most."""

    total: int | None
    done: int
    always: str
    more: Sequence[str]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        # Columns of the bar, and the text behind it.
        room = options.max_width - cell_len(self.always) - 1
        bar = max(NARROWEST_BAR, min(WIDEST_BAR, room))
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=bar)
        grid.add_column(no_wrap=True)
        grid.add_row(
            ProgressBar(self.total, self.done, width=bar, pulse=self.total is None),
            Text(self._fitted(options.max_width - bar - 1), no_wrap=True, overflow="crop"),
        )
        yield grid

    def _fitted(self, width: int) -> str:
        text = self.always
        for word in self.more:
            if cell_len(text + _GAP + word) > width:
                break
            text += _GAP + word
        return text
