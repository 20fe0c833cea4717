"""The results of an evaluation as plain values and as lines for people. Knows no file, no model."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mpiadv.evaluation.results import Findings, Share, sample_steps_text
from mpiadv.evaluation.verdict import Verdict

FORMAT = 1
"""Of the values that `report_of` gives."""

HEADER = ("attack", "settings", "attacked", "broken", "accuracy", "95 % interval")


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
    }


def show(console: Console, findings: Findings, verdict: Verdict) -> None:
    """Print a table where a person watches, plain lines otherwise, then the verdict."""
    rows = [HEADER, *_rows(findings)]
    if console.is_terminal:
        console.print(_table(rows))
    else:
        for line in _lines(rows):
            _say(console, line)
    _say(console, sample_steps_text(findings))
    for doubt in verdict.doubts:
        _say(console, f"warning: {doubt}")
    for sign in verdict.signs or ():
        _say(console, f"warning: sign of gradient masking: {sign}")
    if verdict == Verdict(signs=()):
        _say(console, "no sign of gradient masking")


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {"count": share.count, "accuracy": share.percent, "interval": [low, high]}


def _attack(findings: Findings, number: int) -> dict[str, Any]:
    attack = findings.attacks[number]
    return {
        "title": attack.title,
        **attack.settings,
        **({"step_size": attack.step_length} if attack.kind == "pgd" else {}),
        "source": attack.source,
        "chain": attack.chain,
        "attacked": int(findings.attacked(number).sum()),
        "broken": int(findings.broken(number).sum()),
        "sample_steps": findings.sample_steps(number),
        "saved_sample_steps": findings.saved_sample_steps(number),
        **_share(findings.accuracy(number)),
    }


def _rows(findings: Findings) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("natural", "", "", "", *_cells(findings.natural))]
    for number, attack in enumerate(findings.attacks):
        counts = findings.attacked(number).sum(), findings.broken(number).sum()
        cells = _cells(findings.accuracy(number))
        rows.append((attack.title, attack.details, *map(str, counts), *cells))
    return [*rows, ("worst case", "all attacks", "", "", *_cells(findings.worst_case))]


def _cells(share: Share) -> tuple[str, str]:
    low, high = share.interval
    return f"{share.percent:.2f} %", f"{low:.2f} to {high:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE)
    for title in rows[0]:
        table.add_column(title, justify="left" if title in HEADER[:2] else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
