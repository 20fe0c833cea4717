"""A log as a screen for a terminal, or as a line for a file. Reads no file and no clock."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mpiadv.process.words import duration, percent
from mpiadv.report.curves import ASCII_LEVELS, LEVELS, counts_up_to, segments, sparkline
from mpiadv.report.reading import Log, text
from mpiadv.report.series import (
    ATTACKER_ACTIVITIES,
    COLOURS,
    attacker_seconds,
    final_evaluation,
    last_written,
    mean,
    recent_rate,
    row_seconds,
    seconds_left,
    shares,
    together,
    trainer_seconds,
)
from mpiadv.storage.run_folder import RunState

_LAST_EVENTS = 5
_MOST_RANKS = 8
_LABEL_COLUMNS = 24
_VALUE_COLUMNS = 30

_SHORT = {
    "waiting for parameters on their way": "waiting for parameters",
    "waiting for the trainer": "for the trainer",
    "waiting for tickets": "for tickets",
}
"""What is said of activities in a list of them."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How to draw, `now` in seconds since 1970; `trouble`: why the log could not be read, if so."""

    now: float
    width: int = 80
    ascii_only: bool = False
    trouble: str = ""

    @property
    def levels(self) -> str:
        return ASCII_LEVELS if self.ascii_only else LEVELS

    @property
    def curve_columns(self) -> int:
        return max(10, self.width - _LABEL_COLUMNS - _VALUE_COLUMNS - 8)


def line(log: Log, sight: Sight) -> str:
    """The run in a line."""
    planned = f"/{log.planned_steps}" if log.planned_steps is not None else ""
    waits = _trainer_shares(log).get("waiting", float("nan"))
    parts = [
        f"step {log.num_steps}{planned}",
        f"{_number(recent_rate(log), '.2f')} steps/s",
        f"loss {_number(_recent(log, 'loss'), '.3f')}",
        f"adversarial {percent(_recent(log, 'accuracy'))}",
        f"test {_tested(log)}",
        f"staleness {_number(_recent(log, 'first_staleness'), '.1f')} to "
        f"{_number(_recent(log, 'last_staleness'), '.1f')}",
        f"trainer waits {percent(waits)}",
        *([f"left {duration(seconds_left(log))}"] if _goes_on(log) else []),
        f"{log.condition}, {_age(log, sight.now)}",
        *([sight.trouble] if sight.trouble else []),
    ]
    return "  ".join(parts)


def screen(log: Log, sight: Sight) -> RenderableType:
    """The run as a screen."""
    parts: list[RenderableType] = [_progress(log, sight), _curves(log, sight)]
    if len(log.train):
        parts += [_histogram(log, sight), _shares(log, sight)]
    parts += [_events(log, sight), _foot(log, sight)]
    title = f"{log.label}: {log.condition}"
    return Panel(Group(*parts), title=Text(title), title_align="left", width=sight.width)


def _progress(log: Log, sight: Sight) -> Text:
    planned = log.planned_steps
    told = f" {log.num_steps} steps"
    bar = Text()
    if planned:
        told = f" {log.num_steps} of {planned} steps, {100 * log.num_steps / planned:.0f} %"
        columns = max(10, min(40, sight.width - 74))
        done = min(columns, columns * log.num_steps // planned)
        full, empty = ("#", ".") if sight.ascii_only else ("█", "░")
        bar = Text(full * done, "green").append(empty * (columns - done), "grey42")
    running = duration(float(row_seconds(log).sum()))
    told += f", {running} so far"
    if _goes_on(log):
        told += (
            f", {duration(seconds_left(log))} left at {_number(recent_rate(log), '.2f')} steps/s"
        )
    return bar.append(told)


def _curves(log: Log, sight: Sight) -> Table:
    grid = _grid(sight)
    for name, values, scale, colour in _series(log):
        known = values[np.isfinite(values)]
        if len(known):
            # The newest test result itself; of noisy training batches a mean.
            now = known[-1] if name.startswith("test") else mean(values[-_recent_rows(log) :])
            curve = sparkline(
                values, sight.curve_columns, high=scale, low=0.0 if scale else None,
                levels=sight.levels,
            )  # fmt: skip
            shown = percent(now) if scale else f"{_number(now, '.3f')}"
            grid.add_row(name, Text(curve, colour), shown)
    return grid


def _series(log: Log) -> Iterator[tuple[str, npt.NDArray[np.float64], float | None, str]]:
    """Name, values, end of the scale and colour of every curve."""
    yield "loss", log.column("loss"), None, "red"
    yield "adversarial, training", log.column("accuracy"), 1.0, "red"
    yield "natural, training", log.column("natural_accuracy"), 1.0, "blue"
    for last in final_evaluation(log):
        yield f"test, {_short(last)}", _over_steps(log, "adversarial_accuracy"), 1.0, "red"
        yield "test, natural", _over_steps(log, "natural_accuracy"), 1.0, "blue"


def _over_steps(log: Log, column: str) -> npt.NDArray[np.float64]:
    """An evaluation's column at its steps, NaN at all others: float64 [steps + 1]."""
    values = np.full(log.num_steps + 1, np.nan)
    known = log.evaluation[log.evaluation["step"] <= log.num_steps]
    values[known["step"]] = known[column]
    return values


def _histogram(log: Log, sight: Sight) -> Table:
    grid = _grid(sight)
    recent = log.train[-_recent_rows(log) :]
    for end, setting, colour in (("first", "max", "medium_purple"), ("last", "final", "orange1")):
        values = recent[f"{end}_staleness"].astype(np.int64)
        bound = log.config.get(f"staleness.{setting}_staleness")
        largest = max(int(recent["first_staleness"].max()), bound or 0)
        counts = counts_up_to(values, largest)
        chart = sparkline(counts, sight.curve_columns - 7, low=0.0, levels=sight.levels)
        told = f"mean {values.mean():.1f}, worst {values.max()}, bound {bound}"
        axis = Text("0 ", "grey62").append(chart, colour).append(f" {largest}", "grey62")
        grid.add_row(f"staleness, {end} step", axis, told)
    return grid


def _shares(log: Log, sight: Sight) -> Group:
    """Who waits for whom: the trainer's time and the attackers', over the newest steps."""
    attackers = attacker_seconds(log, _recent_rows(log))
    parts: list[RenderableType] = [
        _legend("trainer", _trainer_shares(log)),
        _share_rows({"  rank 0": _trainer_shares(log)}, sight),
    ]
    if attackers:
        rows = {label: shares(seconds) for label, seconds in _at_most(attackers).items()}
        parts += [_legend("attackers", ATTACKER_ACTIVITIES), _share_rows(rows, sight)]
    return Group(*parts)


def _legend(who: str, activities: Iterable[str]) -> Text:
    coloured = (Text(_SHORT.get(name, name), COLOURS[name]) for name in activities)
    return Text(f"{who}: ").append(Text(", ").join(coloured))


def _share_rows(rows: Mapping[str, dict[str, float]], sight: Sight) -> Table:
    grid = _grid(sight)
    for label, parts in rows.items():
        numbers = (Text(f"{100 * part:.0f}", COLOURS[name]) for name, part in parts.items())
        grid.add_row(label, _bar(parts, sight), Text("  ").join(numbers).append(" %"))
    return grid


def _at_most(attackers: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Seconds by activity of each attacker; of all together where they are many."""
    if len(attackers) <= _MOST_RANKS:
        return {f"  rank {rank}": seconds for rank, seconds in attackers.items()}
    return {f"  {len(attackers)} ranks": together(attackers)}


def _bar(parts: dict[str, float], sight: Sight) -> Text:
    bar, cells = Text(), segments(parts, sight.curve_columns)
    for name, count in cells.items():
        bar.append(("=" if sight.ascii_only else "█") * count, COLOURS[name])
    return bar


def _events(log: Log, sight: Sight) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=_LABEL_COLUMNS, no_wrap=True)
    for number, row in enumerate(log.events[-_LAST_EVENTS:]):
        told = f"step {row['step']}: {text(row['kind'])}: {text(row['text'])}"
        cell = Text(told, overflow="crop" if sight.ascii_only else "ellipsis", no_wrap=True)
        grid.add_row("" if number else "last events", cell)
    return grid


def _foot(log: Log, sight: Sight) -> Text:
    foot = Text(_age(log, sight.now), "bold red" if log.condition == "killed" else "grey62")
    if log.condition in ("killed", "interrupted", "stopped"):
        foot.append("; --resume goes on from the newest checkpoint, and this will show it")
    return foot.append(f"\n{sight.trouble}", "red") if sight.trouble else foot


def _grid(sight: Sight) -> Table:
    """Three columns: name, curve, value."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=_LABEL_COLUMNS, no_wrap=True)
    grid.add_column(width=sight.curve_columns, no_wrap=True)
    return grid


def _goes_on(log: Log) -> bool:
    return log.state in (RunState.RUNNING, RunState.UNKNOWN) and log.condition != "finished"


def _age(log: Log, now: float) -> str:
    written = last_written(log)
    if not isfinite(written):
        return "nothing written yet"
    seconds = max(0.0, now - written)
    days = seconds / 86400
    return f"last row {duration(seconds) if days < 2 else f'{days:.0f} days'} ago"


def _recent_rows(log: Log) -> int:
    """How many steps "now" is a mean over: a tenth of them, within limits."""
    return min(200, max(10, log.num_steps // 10))


def _recent(log: Log, column: str) -> float:
    return mean(log.column(column)[-_recent_rows(log) :])


def _trainer_shares(log: Log) -> dict[str, float]:
    recent = {name: values[-_recent_rows(log) :] for name, values in trainer_seconds(log).items()}
    return shares(recent)


def _tested(log: Log) -> str:
    for row in final_evaluation(log):
        return (
            f"{percent(row['natural_accuracy'])} natural, "
            f"{percent(row['adversarial_accuracy'])} {_short(row)}"
        )
    return "-"


def _short(row: np.void) -> str:
    """The attack of an evaluation without its ball and step size."""
    return text(row["attack"]).partition(" (")[0]


def _number(value: float, form: str) -> str:
    return format(value, form) if isfinite(value) else "-"
