"""A bar and words on one line of a terminal, whatever its width. Knows no training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

WIDEST_BAR, NARROWEST_BAR = 20, 4

_GAP = "  "


@dataclass(frozen=True, kw_only=True)
class Words:
    """What stands behind a bar.

    Attributes:
        always: shown however narrow the terminal is.
        more: shown in this order where there is room.
        worth: the words of `more`, the one that is missed most first.
    """

    always: Sequence[str]
    more: Sequence[str] = ()
    worth: Sequence[str] = ()


def fitted(words: Words, width: int) -> str:
    """As many of the words as fit into `width` columns."""
    shown = set[str]()
    for word in words.worth:
        more = [each for each in words.more if each in shown or each == word]
        if cell_len(_GAP.join([*words.always, *more])) > width:
            break
        shown.add(word)
    return _GAP.join([*words.always, *(each for each in words.more if each in shown)])


class ProgressLine:
    """The line while work goes on; `stop` before anything but the console itself prints.

    It is drawn whenever something is shown, or with `by_itself` ten times a second: then showing
    costs nothing, and a thread draws.
    """

    def __init__(self, console: Console, *, by_itself: bool = False) -> None:
        self._by_itself = by_itself
        self._progress = Progress(_Line(), console=console, auto_refresh=by_itself)
        self._task = self._progress.add_task("", total=None, words=Words(always=()))
        self._progress.start()

    def show(self, done: int, total: int, words: Words) -> None:
        """Tell how far it has come, and in which words."""
        self._progress.update(
            self._task, completed=done, total=total, words=words, refresh=not self._by_itself
        )

    def stop(self) -> None:
        """Leave it as it is, and go on below."""
        self._progress.stop()


class _Line(ProgressColumn):
    def render(self, task: Task) -> RenderableType:
        return _Fitted(task.total, task.completed, task.fields["words"])


@dataclass(frozen=True)
class _Fitted:
    total: float | None
    completed: float
    words: Words

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        bar, text = self._parts(options.max_width)
        width = min(options.max_width, bar + 1 + cell_len(text))
        return Measurement(width, width)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        bar, text = self._parts(options.max_width)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=bar)
        grid.add_column(no_wrap=True)
        grid.add_row(
            ProgressBar(self.total, self.completed, width=bar, pulse=self.total is None),
            Text(text, no_wrap=True, overflow="crop"),
        )
        yield grid

    def _parts(self, width: int) -> tuple[int, str]:
        """Columns of the bar, and the text behind it."""
        room = width - cell_len(_GAP.join(self.words.always)) - 1
        bar = max(NARROWEST_BAR, min(WIDEST_BAR, room))
        return bar, fitted(self.words, width - bar - 1)
