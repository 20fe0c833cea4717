"""A bar and words on one line of a terminal, whatever its width. Knows no training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
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
        begun = _Line(None, 0, Words(always=()))
        self._live = Live(begun, console=console, auto_refresh=by_itself, refresh_per_second=10)
        self._live.start(refresh=True)

    def show(self, done: int, total: int, words: Words) -> None:
        """Tell how far it has come, and in which words."""
        self._live.update(_Line(total, done, words), refresh=not self._by_itself)

    def stop(self) -> None:
        """Leave it as it is, and go on below."""
        self._live.stop()


@dataclass(frozen=True)
class _Line:
    total: int | None
    done: int
    words: Words

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        # Columns of the bar, and the text behind it.
        room = options.max_width - cell_len(_GAP.join(self.words.always)) - 1
        bar = max(NARROWEST_BAR, min(WIDEST_BAR, room))
        text = fitted(self.words, options.max_width - bar - 1)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=bar)
        grid.add_column(no_wrap=True)
        grid.add_row(
            ProgressBar(self.total, self.done, width=bar, pulse=self.total is None),
            Text(text, no_wrap=True, overflow="crop"),
        )
        yield grid
