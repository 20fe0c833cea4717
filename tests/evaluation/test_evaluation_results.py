"""Figures, their uncertainty, and what they say of gradient masking."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.report import report_of, show
from mpiadv.evaluation.results import Findings, Share
from mpiadv.evaluation.store import file_of, write_results
from mpiadv.evaluation.survivors import NUM_PLAIN, Assault, attack_share
from mpiadv.evaluation.verdict import (
    Verdict,
    is_weaker,
    judge,
    large_epsilon,
    probe_attacks,
    signs_of_masking,
)

WILSON = [
    (0, 10, 0.0, 27.7533),
    (5, 10, 23.6593, 76.3407),
    (10, 10, 72.2467, 100.0),
]


@pytest.mark.parametrize(("count", "total", "low", "high"), WILSON)
def test_interval_is_wilsons(count: int, total: int, low: float, high: float) -> None:
    assert Share(count=count, total=total).interval == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("count", range(0, 21))
def test_interval_holds_the_figure_and_stays_within_percent(count: int) -> None:
    share = Share(count=count, total=20)
    low, high = share.interval
    assert 0 <= low <= share.percent <= high <= 100


def _findings(attacks: list[AttackSpec], *fates: str) -> Findings:
    """One image per fate: a letter per attack, `b` broken, `s` still standing, `-` not attacked.

    A fate that starts with `w` is an image that is wrong without any attack.
    """
    rows = []
    for index, fate in enumerate(fates):
        row = [float(index), 1.0, 0.0 if fate[0] == "w" else 1.0, 0.0, 0.0]
        for letter in fate.removeprefix("w"):
            row += [float(letter in "bs"), float(letter == "b"), 10.0 * (letter != "-")]
        rows.append(row)
    return Findings(attacks=tuple(attacks), values=np.array(rows))


def _pgd(**changes: Any) -> AttackSpec:
    return AttackSpec(kind="pgd", **{"steps": 10, "epsilon": 0.3, **changes})


FGSM = AttackSpec(kind="fgsm", epsilon=0.3)


def test_figures_count_what_stands_after_each_attack_and_after_all() -> None:
    findings = _findings([FGSM, _pgd()], "ss", "sb", "b-", "w--")
    assert findings.natural.percent == 75
    assert [findings.all_so_far(number).percent for number in (0, 1)] == [50, 25]
    assert findings.worst_case.percent == 25
    assert list(findings.first_breaker) == [-1, 1, 0, -1]
    assert findings.sample_steps(1) == 20
    assert findings.saved_sample_steps(1) == 20


ALONE = {
    "on_all": (["ss", "sb", "bs", "bb"], [50, 50], [50, 25]),
    "on_survivors": (["ss", "sb", "b-", "b-"], [50, None], [50, 25]),
    "on_survivors_that_are_all": (["ss", "ss", "ss", "sb"], [100, 75], [100, 75]),
    "some_are_wrong": (["ss", "sb", "bs", "w--"], [50, 50], [50, 25]),
}


@pytest.mark.parametrize(
    ("fates", "alone", "so_far"), [pytest.param(*case, id=name) for name, case in ALONE.items()]
)
def test_accuracy_under_one_attack_is_told_apart_from_the_worst_case_so_far(
    fates: list[str], alone: list[float | None], so_far: list[float]
) -> None:
    findings = _findings([_pgd(), _pgd(loss="margin")], *fates)
    shares = [findings.this_alone(number) for number in (0, 1)]
    assert [share and share.percent for share in shares] == alone
    assert [findings.all_so_far(number).percent for number in (0, 1)] == so_far
    for attack, known in zip(
        report_of(findings, Verdict(signs=None))["attacks"], alone, strict=True
    ):
        assert (attack["this_alone"] is None) == (known is None)
        assert "accuracy" not in attack


def test_table_and_lines_show_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    findings = _findings([FGSM, _pgd()], "ss", "sb", "b-", "w--")
    for terminal in (True, False):
        verdict = Verdict(signs=("ouch",), doubts=("too good",))
        show(Console(force_terminal=terminal, width=120, color_system=None), findings, verdict)
        shown = capsys.readouterr().out
        for text in (
            "natural",
            "fgsm",
            "pgd-10",
            "worst case",
            "75.00 %",
            "4.56 to 69.94",
            "this alone",
            "all so far",
        ):
            assert text in shown
        assert "warning: sign of gradient masking: ouch" in shown
        assert "warning: too good" in shown


VERDICTS = {
    "nothing": (Verdict(signs=()), True),
    "note": (Verdict(signs=(), notes=("few",)), True),
    "sign": (Verdict(signs=("ouch",)), False),
    "doubt": (Verdict(signs=(), doubts=("ouch",)), False),
    "not_looked_for": (Verdict(signs=None), False),
}


@pytest.mark.parametrize(
    ("verdict", "is_clear"), [pytest.param(*case, id=name) for name, case in VERDICTS.items()]
)
def test_figures_are_cleared_only_where_nothing_speaks_against_them(
    verdict: Verdict, is_clear: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(Console(width=120, color_system=None), _findings([FGSM], "s"), verdict)
    assert ("no sign of gradient masking" in capsys.readouterr().out) == is_clear


WEAKER = {
    "one_step": (FGSM, _pgd(), True),
    "many_steps": (_pgd(), FGSM, False),
    "fewer_steps": (_pgd(steps=5), _pgd(), True),
    "fewer_restarts": (_pgd(), _pgd(restarts=2), True),
    "fewer_steps_more_restarts": (_pgd(steps=5, restarts=2), _pgd(), False),
    "itself": (_pgd(), _pgd(), False),
    "transferred": (_pgd(steps=100, source="other"), _pgd(), True),
    "transferred_beside_transferred": (_pgd(source="a"), _pgd(source="b"), False),
    "no_gradient": (AttackSpec(kind="square", epsilon=0.3), _pgd(), True),
    "another_radius": (FGSM, _pgd(epsilon=0.2), False),
    "another_norm": (FGSM, _pgd(norm="l2"), False),
    "another_loss": (_pgd(steps=5), _pgd(loss="margin"), False),
    "moved_image": (AttackSpec(kind="grid"), AttackSpec(kind="pgd"), False),
}


@pytest.mark.parametrize(
    ("weak", "strong", "expected"), [pytest.param(*case, id=name) for name, case in WEAKER.items()]
)
def test_strength_is_compared_only_where_it_is_known(
    weak: AttackSpec, strong: AttackSpec, expected: bool
) -> None:
    assert is_weaker(weak, strong) == expected


SIGNS = {
    "one_step_beats_many": ([_pgd(), FGSM], "one step beats many: fgsm broke 3 more of 6 images "),
    "transfer_beats_own": (
        [_pgd(), _pgd(source="other")],
        "a transferred attack beats the model's own gradients: pgd-10 from other broke 3 more",
    ),
    "square_beats_gradients": (
        [_pgd(), AttackSpec(kind="square", epsilon=0.3)],
        "an attack without gradients beats one with them: square broke 3 more",
    ),
    "fewer_steps_beat_more": (
        [_pgd(), _pgd(steps=2)],
        "a weaker attack beats a stronger one: pgd-2 broke 3 more of 6 images than pgd-10 ",
    ),
}


@pytest.mark.parametrize(
    ("attacks", "line"), [pytest.param(*case, id=name) for name, case in SIGNS.items()]
)
def test_sign_is_told_with_its_evidence(attacks: list[AttackSpec], line: str) -> None:
    (sign,) = signs_of_masking(_findings(attacks, "sb", "sb", "sb", "ss", "b-", "b-"))
    assert sign.startswith(line)


def test_weaker_attack_that_loses_as_many_as_it_gains_is_no_sign() -> None:
    fates = ["sb"] * 3 + ["bs"] * 3
    assert signs_of_masking(_findings([_pgd(), FGSM], *fates)) == []


WEAK, STRONG = _pgd(norm="l2", step_size=0.001), _pgd(norm="l2", steps=20)

FLATTERED = {
    "much_weaker": ([WEAK], "of 10 images pgd-10 (l2 0.3, step 0.001, ce) left 10 standing, pgd-20 "
                            "(l2 0.3, step 0.0375, ce) 4"),
    "one_of_two": ([_pgd(), WEAK], "of 10 images pgd-10 (l2 0.3, step 0.001, ce) left 10 standing"),
    "another_radius": ([_pgd(norm="l2", epsilon=0.2)], ""),
    "another_norm": ([_pgd()], ""),
    "moved_image": ([AttackSpec(kind="grid", norm="l2", epsilon=0.3)], ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("attacks", "line"), [pytest.param(*case, id=name) for name, case in FLATTERED.items()]
)
def test_attack_that_the_probe_beats_by_far_in_its_ball_is_told(
    attacks: list[AttackSpec], line: str
) -> None:
    findings = _findings(attacks, *["s" * len(attacks)] * 12)
    probe = _findings([FGSM, STRONG], *["sb"] * 6, *["ss"] * 4)
    doubts = judge(findings, probe).doubts
    assert len(doubts) == bool(line)
    assert all(doubt.startswith(f"the figures flatter the model: {line}") for doubt in doubts)


def test_attack_that_finds_about_as_much_as_the_probe_is_not_doubted() -> None:
    findings = _findings([WEAK], *["b"] * 4, *["s"] * 8)
    assert judge(findings, _findings([STRONG], *["b"] * 6, *["s"] * 4)).doubts == ()


class _Images:
    """Random images in memory; labels by the side that is brighter."""

    num_samples = 40

    def __init__(self) -> None:
        self.images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        left, right = self.images[..., :2].sum((1, 2, 3)), self.images[..., 2:].sum((1, 2, 3))
        self.labels = (left > right).long()

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


class _Brighter(nn.Module):
    """Tells the brighter side; `is_masked` hides its gradient behind a rounding."""

    def __init__(self, *, is_masked: bool) -> None:
        super().__init__()
        self.is_masked = is_masked

    def forward(self, images: Tensor) -> Tensor:
        if self.is_masked:
            images = images.mul(64).round().div(64)
        margin = images[..., :2].sum((1, 2, 3)) - images[..., 2:].sum((1, 2, 3))
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


@pytest.mark.parametrize("is_masked", [False, True], ids=["sound", "masked"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_model_that_hides_its_gradient_is_found_out(norm: str, is_masked: bool) -> None:
    attacks = probe_attacks([(norm, large_epsilon(norm, 16) / 10)], 16)
    assault = Assault(
        target=Classifier(model=_Brighter(is_masked=is_masked), precision="float32"),
        attacks=attacks, seed=0, num_samples=40, batch_size=10,
    )  # fmt: skip
    values = attack_share(assault, _Images()).values
    signs = signs_of_masking(
        Findings(attacks=(), values=values[:, :NUM_PLAIN]), Findings(attacks=attacks, values=values)
    )
    assert bool(signs) == is_masked
    assert all("a large radius is not enough: " in sign for sign in signs)


def test_results_without_examples_leave_no_picture_of_earlier_ones(tmp_path: Path) -> None:
    output = tmp_path / "evaluation"
    file_of(output, ".png").write_bytes(b"of other attacks")
    write_results(output, {}, _findings([_pgd()], "s", "b"), None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"evaluation.json", "evaluation.h5"}
