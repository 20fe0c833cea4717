"""What `mpiadv evaluate` left in a run's folder, as tables. Knows no torch: it reads JSON alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpiadv.process.errors import printable
from mpiadv.report.reading import Log
from mpiadv.storage.run_folder import BEST, EMA, LOG_NAME
from mpiadv.storage.small_files import read_small

FILES = "*evaluation.json"
"""Of a run's weights, and as `model-ema-evaluation.json` of others in its folder."""

FORMAT = 2
"""Of the files that are written and understood."""

MOST_BYTES = 2**24
"""Of such a file."""

HEADINGS = (
    "attack", "settings", "attacked", "broken", "this alone", "all so far", "95 % interval",
)  # fmt: skip
"""Accuracy under one attack by itself is known only where it was run on all images that are right;
where it got the survivors of others, only the worst case of all so far is."""

_MOST_FILES = 20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What comes of a file that is damaged, or of something else."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One file of results, at `place` below the run's folder; `rows` are cells under `HEADINGS`.

    `told` says in a sentence what was evaluated, or why nothing is shown.
    """

    place: str
    told: str
    rows: Sequence[Sequence[str]] = ()
    verdict: Sequence[str] = ()


def evaluations(log: Log) -> list[Evaluation]:
    """The results in a run's folder, and in the folders in it."""
    folder = log.path.parent
    if log.path.name != LOG_NAME:
        return []
    files = [*sorted(folder.glob(FILES)), *sorted(folder.glob(f"*/{FILES}"))]
    return [_read(path, log) for path in files if path.is_file()][:_MOST_FILES]


def _read(path: Path, log: Log) -> Evaluation:
    place = printable(str(path.relative_to(log.path.parent)))
    try:
        report = json.loads(read_small(path, MOST_BYTES))
        if report["format"] != FORMAT:
            told = f"of format {report['format']!r}, not {FORMAT}: run mpiadv evaluate again"
            return Evaluation(place=place, told=told)
        return Evaluation(
            place=place,
            told=printable(_told(report, log)),
            rows=[tuple(map(printable, row)) for row in rows_of(report)],
            verdict=[printable(line) for line in verdict_of(report)],
        )
    except _UNREADABLE:
        return Evaluation(place=place, told="cannot be read as results of mpiadv evaluate")


def _told(report: Mapping[str, Any], log: Log) -> str:
    found, settings = str(report["settings"]["model_hash"]), report["settings"]
    known = {
        log.hash_of(EMA): ", the averaged weights",
        log.hash_of(BEST): ", the weights that withstood most on images held out",
        log.hash: "",
    }
    which = known.get(found, ", which is not the run's final one") if log.hash else ""
    return (
        f"{report['num_samples']} test images of {settings['data']['name']}, "
        f"{settings['precision']}, network {found[:12]}" + which
    )


def rows_of(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The figures of an evaluation, as cells under `HEADINGS`."""
    natural = report["natural"]
    rows = [("natural", "", "", "", *_cells(natural, natural))]
    for attack in report["attacks"]:
        counts = str(int(attack["attacked"])), str(int(attack["broken"]))
        cells = _cells(attack["this_alone"], attack["all_so_far"])
        rows.append((str(attack["title"]), str(attack["details"]), *counts, *cells))
    return [*rows, ("worst case", "all attacks", "", "", *_cells(None, report["worst_case"]))]


def _cells(alone: Mapping[str, Any] | None, so_far: Mapping[str, Any]) -> tuple[str, str, str]:
    """Accuracy alone, so far, and the interval of the latter."""
    low, high = so_far["interval"]
    known = "" if alone is None else f"{alone['accuracy']:.2f} %"
    return known, f"{so_far['accuracy']:.2f} %", f"{low:.2f} to {high:.2f}"


def verdict_of(report: Mapping[str, Any]) -> list[str]:
    """What is to be said of its figures, line by line."""
    signs, warnings = report["signs_of_gradient_masking"], report["warnings"]
    lines = [
        *map(str, report["notes"]),
        *(f"warning: {text}" for text in warnings),
        *(f"warning: sign of gradient masking: {text}" for text in signs or ()),
    ]
    if signs is None:
        return [*lines, "gradient masking was not looked for"]
    return lines if signs or warnings else [*lines, "no sign of gradient masking"]
