"""The summary of runs as rows of text: how they stand, how they ended, where they differ."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from mpiadv.process.words import UNKNOWN, duration
from mpiadv.report.reading import Log, text
from mpiadv.report.series import row_seconds
from mpiadv.storage.run_folder import ATTACKED, BEST, EMA, NATURAL, RAW


def summary_table(logs: Sequence[Log]) -> list[tuple[str, ...]]:
    """A row per property that any log has: its name, then a cell for each log."""
    rows = [(name, *(tell(log) for log in logs)) for name, tell in _ROWS.items()]
    return [row for row in rows if row[0] not in _OPTIONAL or {*row[1:]} != {UNKNOWN}]


def differing_settings(logs: Sequence[Log]) -> list[tuple[str, ...]]:
    """A row per setting that is not the same in all logs."""
    keys = list(dict.fromkeys(key for log in logs for key in log.config))
    rows = [(key, *(str(log.config.get(key, UNKNOWN)) for log in logs)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1 and row[0] != "output"]


def _steps(log: Log) -> str:
    planned = log.planned_steps
    return f"{log.num_steps} of {planned}" if planned is not None else str(log.num_steps)


def _accuracy(kind: str, weights: str = RAW) -> Callable[[Log], str]:
    def tell(log: Log) -> str:
        for row in log.evaluations_of(weights)[-1:]:
            attack = f" under {text(row['attack'])}" if kind == "adversarial" else ""
            return (
                f"{100 * row[f'{kind}_accuracy']:.2f} %{attack} ({row['num_samples']} test images, "
                f"after step {row['step']})"
            )
        return UNKNOWN

    return tell


def _time(log: Log) -> str:
    seconds = float(row_seconds(log).sum())
    rate = f", {log.num_steps / seconds:.2f} steps/s" if seconds > 0 else ""
    return f"{duration(seconds)}{rate}"


def _ranks(log: Log) -> str:
    return ", then ".join(str(count) for count, _ in groupby(log.ranks)) or UNKNOWN


def _machine(log: Log) -> str:
    hosts = sorted(set(text(log.attributes.get("hosts", UNKNOWN)).split(",")))
    shown = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
    threads = log.attributes.get("threads", UNKNOWN)
    device = text(log.attributes.get("device", UNKNOWN))
    return f"{shown}; {device}, {threads} thread(s) per rank"


def _versions(log: Log) -> str:
    """How they reached the attackers, in the last start that had any."""
    told = log.events_of("sharing")
    return text(told[-1]["text"]) if len(told) else UNKNOWN


def _attack(log: Log) -> str:
    most = "" if log.config.get("attack_schedule.name", "constant") == "constant" else "up to "
    return _said(
        log,
        f"<attack.name>, {most}<attack.num_steps> steps, <attack.norm>, epsilon <attack.epsilon>",
    )


def _said(log: Log, template: str) -> str:
    """The template with a setting's value in place of its key in angle brackets."""
    return re.sub("<(.+?)>", lambda found: str(log.config.get(found[1], UNKNOWN)), template)


def _rows_of(weights: str, called: str) -> dict[str, Callable[[Log], str]]:
    """Of weights that not every run has."""
    kinds = ("natural", "adversarial")
    accuracies = {f"{kind} accuracy, {called}": _accuracy(kind, weights) for kind in kinds}
    return {**accuracies, f"hash of {called}": lambda log: log.hash_of(weights) or UNKNOWN}


_OF_OTHERS = {
    **_rows_of(EMA, "averaged weights"),
    **_rows_of(BEST, "best weights"),
    **{
        f"{kind} accuracy, through {branch} batch norm": _accuracy(kind, weights)
        for weights, branch in ((NATURAL, "natural"), (ATTACKED, "adversarial"))
        for kind in ("natural", "adversarial")
    },
}

_OPTIONAL = {*_OF_OTHERS, "versions"}
"""Rows that are left out where no log has any."""

_ROWS: Mapping[str, Callable[[Log], str]] = {
    "state": lambda log: log.condition,
    "trained": lambda log: _said(log, "<model.name> on <data.name>"),
    "training attack": _attack,
    "staleness": lambda log: _said(
        log,
        "at most <staleness.max_staleness>, at the last attack step <staleness.final_staleness>",
    ),
    "steps": _steps,
    "natural accuracy": _accuracy("natural"),
    "adversarial accuracy": _accuracy("adversarial"),
    **_OF_OTHERS,
    "running time": _time,
    "ranks": _ranks,
    "machine": _machine,
    "versions": _versions,
    "hash of the model": lambda log: log.hash or UNKNOWN,
}
