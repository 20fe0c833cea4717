"""`mpiadv watch`: looks at a log again and again, until its run is done or Ctrl-C."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from mpiadv.command_lines import CommandLine
from mpiadv.command_lines.numbers import number
from mpiadv.process.errors import UserError, printable
from mpiadv.process.streams import is_unread
from mpiadv.report.reading import Log, read_log
from mpiadv.report.screen import Sight, line, screen
from mpiadv.storage.run_folder import LOG_NAME, RunState, state_of

TERMINAL_SECONDS, FILE_SECONDS = 2.0, 10.0
"""Seconds between looks unless `--every` says otherwise."""


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv watch",
        description="Show a run as it goes on, from its log alone. Ends when the run is done; "
        "a run that was interrupted or killed is waited for, as it may be resumed.",
    )
    described.add_argument("log", metavar="LOG_OR_RUN_FOLDER", help="a log.h5, or a run's folder")
    described.add_argument(
        "--every", metavar="SECONDS", type=number(86_400), help="seconds between looks: 2 in a "
        "terminal, 10 where the output goes elsewhere and each look is a line",
    )  # fmt: skip
    described.add_argument("--once", action="store_true", help="look once, and end")
    return described


def main(argv: Sequence[str]) -> int:
    """Watch; returns the exit code.

    Raises:
        UserError: there is no log, or it cannot be read.
    """
    arguments = parser().parse_args(argv)
    console = Console()
    every = arguments.every or (TERMINAL_SECONDS if console.is_terminal else FILE_SECONDS)
    seen = looks(arguments.log, every, once=arguments.once)
    with contextlib.suppress(KeyboardInterrupt):
        (_show_screens if console.is_terminal else _show_lines)(console, seen)
    return 0


def looks(
    path: str, every: float, *, once: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[Log, str]]:
    """The log now and every so many seconds, and why it could not be read just then, if so.

    A run that is just starting is waited for. Ends with the look at a finished run.

    Raises:
        UserError: at the first look; later the log as last read is given again.
    """
    while not once and _is_starting(Path(path)):
        sleep(min(every, 1.0))
    log, trouble = read_log(path, snapshots=False), ""
    while True:
        yield log, trouble
        if once or log.condition == "finished":
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
