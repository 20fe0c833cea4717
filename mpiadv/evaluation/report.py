"""The results of an evaluation as plain values and as lines for people. Knows no file, no model."""

from collections.abc import Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from mpiadv.evaluation.results import Findings, Share, sample_steps_text
from mpiadv.evaluation.verdict import Verdict
from mpiadv.process.words import aligned

FORMAT = 2
"""Of the values that `report_of` gives."""

HEADER = ("attack", "settings", "attacked", "broken", "this alone", "all so far", "95 % interval")
"""Accuracy under one attack by itself is known only where it was run on all images that are right;
where it got the survivors of others, only the worst case of all so far is."""


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
    rows = [HEADER, *_rows(findings)]
    if console.is_terminal:
        console.print(_table(_fitted(rows, console.width)))
    else:
        for line in _lines(rows):
            _say(console, line)
    _say(console, sample_steps_text(findings))
    for note in verdict.notes:
        _say(console, note)
    for doubt in verdict.doubts:
        _say(console, f"warning: {doubt}")
    for sign in verdict.signs or ():
        _say(console, f"warning: sign of gradient masking: {sign}")
    if verdict.is_clear:
        _say(console, "no sign of gradient masking")


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {"count": share.count, "accuracy": share.percent, "interval": [low, high]}


def _attack(findings: Findings, number: int) -> dict[str, Any]:
    attack, alone = findings.attacks[number], findings.this_alone(number)
    return {
        "title": attack.title,
        "details": attack.details,
        **attack.settings,
        **({"step_size": attack.attack.step_size} if attack.kind == "pgd" else {}),
        "source": attack.source,
        "chain": attack.chain,
        "attacked": int(findings.attacked(number).sum()),
        "broken": int(findings.broken(number).sum()),
        "sample_steps": findings.sample_steps(number),
        "saved_sample_steps": findings.saved_sample_steps(number),
        "this_alone": None if alone is None else _share(alone),
        "all_so_far": _share(findings.all_so_far(number)),
    }


def _rows(findings: Findings) -> list[tuple[str, ...]]:
    natural, worst = findings.natural, findings.worst_case
    rows: list[tuple[str, ...]] = [("natural", "", "", "", *_cells(natural, natural))]
    for number, attack in enumerate(findings.attacks):
        counts = findings.attacked(number).sum(), findings.broken(number).sum()
        cells = _cells(findings.this_alone(number), findings.all_so_far(number))
        rows.append((attack.title, attack.details, *map(str, counts), *cells))
    return [*rows, ("worst case", "all attacks", "", "", *_cells(None, worst))]


def _cells(alone: Share | None, so_far: Share) -> tuple[str, str, str]:
    """Accuracy alone, so far, and the interval of the latter."""
    low, high = so_far.interval
    known = "" if alone is None else f"{alone.percent:.2f} %"
    return known, f"{so_far.percent:.2f} %", f"{low:.2f} to {high:.2f}"


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
        justify: Literal["left", "right"] = "left" if title in HEADER[:2] else "right"
        table.add_column(title, justify=justify, no_wrap=title != "settings")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return aligned(rows, num_names=2)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
