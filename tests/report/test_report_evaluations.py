"""What `mpiadv evaluate` left beside a log is in the report, which no file there can break."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_logs import finished_run

from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.report import report_of
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.verdict import Verdict
from mpiadv.report.evaluations import evaluations
from mpiadv.report.page import page
from mpiadv.report.reading import read_log

ATTACKS = (AttackSpec(kind="fgsm", epsilon=0.3), AttackSpec(kind="pgd", epsilon=0.3))


def _results(verdict: Verdict) -> dict[str, Any]:
    """Of four images: one wrong, one broken by each attack."""
    fates = ["101101", "101111", "111000", "000000"]
    values = [[i, 1, 1 - (i == 3), 0, 0, *map(int, fate)] for i, fate in enumerate(fates)]
    findings = Findings(attacks=ATTACKS, values=np.array(values, np.float64))
    settings = {"model_hash": "abc", "precision": "float32", "data": {"name": "<digits>"}}
    return {"settings": settings, **report_of(findings, verdict)}


def _write(path: Path, results: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results))


def test_results_in_the_runs_folder_are_on_the_page(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    assert "mpiadv evaluate" not in page([read_log(folder)])
    _write(folder / "evaluation.json", _results(Verdict(signs=(), doubts=("<too> good",))))
    _write(folder / "auto" / "evaluation.json", _results(Verdict(signs=())))
    _write(folder / "model-ema-evaluation.json", _results(Verdict(signs=())))
    shown = page([read_log(folder)])
    for text in (
        "evaluation.json: 4 test images of &lt;digits&gt;, float32, network abc, which is ",
        "<tr><th>fgsm</th><td>linf 0.3, ce</td><td>3</td><td>1</td><td>50.00 %</td>",
        "warning: &lt;too&gt; good",
        "auto/evaluation.json: ",
        "model-ema-evaluation.json: ",
        "no sign of gradient masking",
    ):
        assert text in shown


VERDICTS = {
    "clear": (Verdict(signs=()), ["no sign of gradient masking"]),
    "signs": (Verdict(signs=("a",), doubts=("b",), notes=("c",)),
              ["c", "warning: b", "warning: sign of gradient masking: a"]),
    "not_looked_for": (Verdict(signs=None), ["gradient masking was not looked for"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "lines"), [pytest.param(*case, id=name) for name, case in VERDICTS.items()]
)
def test_verdict_is_shown_as_it_was_told(
    verdict: Verdict, lines: list[str], tmp_path: Path
) -> None:
    folder = finished_run(tmp_path / "run")
    _write(folder / "evaluation.json", _results(verdict))
    (found,) = evaluations(read_log(folder))
    assert list(found.verdict) == lines


DAMAGED = {
    "no_json": (b"{", "cannot be read as results of mpiadv evaluate"),
    "empty": (b"", "cannot be read as results of mpiadv evaluate"),
    "no_text": (b"\xff\xfe\0", "cannot be read as results of mpiadv evaluate"),
    "a_list": (b"[]", "cannot be read as results of mpiadv evaluate"),
    "deep": (b"[" * 10**5, "cannot be read as results of mpiadv evaluate"),
    "older": (b'{"format": 1}', "of format 1, not 2: run mpiadv evaluate again"),
    "no_figures": (b'{"format": 2}', "cannot be read as results of mpiadv evaluate"),
}


@pytest.mark.parametrize(
    ("content", "told"), [pytest.param(*case, id=name) for name, case in DAMAGED.items()]
)
def test_damaged_results_are_told_of_and_leave_the_report_whole(
    content: bytes, told: str, tmp_path: Path
) -> None:
    folder = finished_run(tmp_path / "run")
    (folder / "evaluation.json").write_bytes(content)
    (found,) = evaluations(read_log(folder))
    assert (found.told, found.rows) == (told, ())
