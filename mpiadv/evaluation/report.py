"""The results of an evaluation as plain values and as lines for people. Knows no file, no model."""

from collections.abc import Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from mpiadv.evaluation.results import Findings, Share, sample_steps_text
from mpiadv.evaluation.verdict import Verdict
from mpiadv.process.words import aligned
from mpiadv.report.evaluations import FORMAT, HEADINGS, rows_of, verdict_of


def report_of(findings: Findings, verdict: Verdict) -> dict[str, Any]:
    """The results as numbers, strings, lists and dicts; the same for any number of ranks."""
    return {
        "format": FORMAT,
        "num_samples": findings.num_samples,
        "natural": _share(findings.natural),
        "attacks": [_attack(findings, number) for number in range(len(findings.attacks))],
        "worst_case": _share(findings.worst_case),
        "signs_of_gradient_masking": None if verdict.signs is None else list(verdict.signs),
        "warnings": list(verdict.doubts),
        "notes": list(verdict.notes),
    }


def show(console: Console, findings: Findings, verdict: Verdict) -> None:
    """Print a table where a person watches, plain lines otherwise, then the verdict."""
    report = report_of(findings, verdict)
    rows = [HEADINGS, *rows_of(report)]
    if console.is_terminal:
        console.print(_table(_fitted(rows, console.width)))
    else:
        for line in aligned(rows, num_names=2):
            say(console, line)
    for line in (sample_steps_text(findings), *verdict_of(report)):
        say(console, line)


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {"count": share.count, "accuracy": share.percent, "interval": [low, high]}


def _attack(findings: Findings, number: int) -> dict[str, Any]:
    attack, alone = findings.attacks[number], findings.this_alone(number)
    return {
        "title": attack.title,
        "details": attack.details,
        **attack.settings,
        **({"step_size": attack.attack.step_size} if attack.has_steps else {}),
        "source": attack.source,
        "chain": attack.chain,
        "attacked": int(findings.attacked(number).sum()),
        "broken": int(findings.broken(number).sum()),
        "sample_steps": findings.sample_steps(number),
        "saved_sample_steps": findings.saved_sample_steps(number),
        "this_alone": None if alone is None else _share(alone),
        "all_so_far": _share(findings.all_so_far(number)),
    }


def _fitted(rows: Sequence[tuple[str, ...]], width: int) -> Sequence[tuple[str, ...]]:
    """Where the terminal is too narrow without the counts of images, and then the interval."""
    if _width(rows) <= width:
        return rows
    without_counts = [(*row[:2], *row[4:]) for row in rows]
    is_narrow = _width([(row[0], *row[2:]) for row in without_counts]) + _LEAST_SETTINGS > width
    return [row[:-1] for row in without_counts] if is_narrow else without_counts


_LEAST_SETTINGS = 16
"""Characters; settings take several lines where they have to."""


def _width(rows: Sequence[tuple[str, ...]]) -> int:
    """Of a table with these rows, in characters."""
    return sum(max(map(len, column)) + 3 for column in zip(*rows, strict=True))


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in rows[0]:
        justify: Literal["left", "right"] = "left" if title in HEADINGS[:2] else "right"
        table.add_column(title, justify=justify, no_wrap=title != "settings")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
