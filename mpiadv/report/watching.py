"""Looks at a log again and again, until its run is done, and shows what it sees."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from mpiadv.process.errors import UserError, printable
from mpiadv.process.streams import is_unread
from mpiadv.report.reading import DIVERGED, Log, read_log
from mpiadv.report.screen import Sight, line, screen
from mpiadv.storage.run_folder import LOG_NAME, RunState, state_of

TERMINAL_SECONDS, FILE_SECONDS = 2.0, 10.0
"""Seconds between looks unless told otherwise."""

_LAST = ("finished", "overfitted", DIVERGED)
"""Conditions that nobody ends by going on with the run as it is."""


def watch(log: str, *, every: float | None, once: bool) -> None:
    """Show the run of a log, or in a folder, as it goes on; `every` so many seconds.

    Raises:
        UserError: there is no log, or it cannot be read.
    """
    console = Console()
    seconds = every or (TERMINAL_SECONDS if console.is_terminal else FILE_SECONDS)
    seen = looks(log, seconds, once=once)
    (_show_screens if console.is_terminal else _show_lines)(console, seen)


def looks(
    path: str, every: float, *, once: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[Log, str]]:
    """The log now and every so many seconds, and why it could not be read just then, if so.

    A run that is just starting is waited for. Ends with the look at a run that is finished, or that
    diverged or overfitted.

    Raises:
        UserError: at the first look; later the log as last read is given again.
    """
    while not once and _is_starting(Path(path)):
        sleep(min(every, 1.0))
    log, trouble = read_log(path, snapshots=False), ""
    while True:
        yield log, trouble
        if once or log.condition in _LAST:
            return
        sleep(every)
        try:
            log, trouble = read_log(path, snapshots=False), ""
        except UserError as error:
            trouble = str(error)


def _is_starting(folder: Path) -> bool:
    """Whether a run holds the folder and has not come to its log."""
    return not os.path.exists(folder / LOG_NAME) and state_of(folder) is RunState.RUNNING


def _show_screens(console: Console, seen: Iterator[tuple[Log, str]]) -> None:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for log, trouble in seen:
            live.update(screen(log, _sight(console, trouble)), refresh=True)


def _show_lines(console: Console, seen: Iterator[tuple[Log, str]]) -> None:
    for log, trouble in seen:
        print(line(log, _sight(console, trouble)), flush=True)
        if is_unread(sys.stdout):  # `mpiadv watch ... | head -1`
            return


def _sight(console: Console, trouble: str) -> Sight:
    return Sight(
        now=time.time(),
        width=min(console.width, 120),
        ascii_only=console.options.ascii_only,
        trouble=printable(trouble),
    )
