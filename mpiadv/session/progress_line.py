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
