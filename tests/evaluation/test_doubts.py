"""What makes figures say less than they seem to is told, and keeps the verdict from being clear."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpiadv.data.memory import MemorySource
from mpiadv.evaluation import frozen
from mpiadv.evaluation.attack_specs import read_attacks
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.doubts import (
    chance,
    doubts_of,
    missing_classes,
    told_by_authors,
)
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Assault, Warned, attack_share

_OWN_STREAM = torch.Generator()

NOISES: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: 0.0, ""),
    "not_a_number": (lambda: float("nan"), ""),
    "torch": (lambda: torch.rand(()), "flatter it"),
    "numpy": (lambda: np.random.rand(), "flatter it"),
    "python": (random.random, "flatter it"),
    "its_own": (lambda: torch.rand((), generator=_OWN_STREAM), "numpy's or Python's"),
}
"""What a model adds to its logits, and how the line about it ends."""


class _Noisy(nn.Module):
    def __init__(self, noise: Callable[[], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 5))
        self.noise = noise

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images) + self.noise()
        return logits


class _Masked(_Noisy):
    """Rounds its input, so that no gradient comes through."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + (images.round() - images).detach() - images)


IMAGES = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("noise", "end"), [pytest.param(*case, id=name) for name, case in NOISES.items()]
)
def test_random_network_is_found_out(noise: Callable[[], Any], end: str) -> None:
    classifier = Classifier(model=_Noisy(noise), precision="float32")
    before = torch.get_rng_state()
    lines = chance(classifier, IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(lines) == bool(end)
    assert all(line.startswith("model _Noisy is random: ") and line.endswith(end) for line in lines)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack with few steps: what its authors warn of does not depend on their number."""
    from pyautoattack import AutoAttack

    set_version = AutoAttack._set_version

    def fewer(self: Any, version: str = "standard") -> None:
        set_version(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = 10

    monkeypatch.setattr(AutoAttack, "_set_version", fewer)


AUTHORS = {
    "plain": (_Noisy(lambda: 0.0), "apgd-t", ""),
    "random": (_Noisy(lambda: torch.rand(5)), "apgd-ce", "it seems to be a randomized defense! "
                                                         'Please use version="rand".'),
    "masked": (_Masked(lambda: 0.0), "apgd-t", "there are 8 points with zero gradient! This might "
                                               "lead to unreliable evaluation with gradient-based "
                                               "attacks. (8 times)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "component", "warning"),
    [pytest.param(*case, id=name) for name, case in AUTHORS.items()],
)
@pytest.mark.usefixtures("quick")
def test_warning_of_autoattacks_authors_is_told_once(
    model: nn.Module, component: str, warning: str, capfd: pytest.CaptureFixture[str]
) -> None:
    attacks = read_attacks([component], norm="linf", epsilon=0.01, each_alone=False)
    target = Classifier(model=model, precision="float32")
    with frozen(model), torch.no_grad():
        labels = model(IMAGES).argmax(dim=1)
        assault = Assault(target=target, attacks=attacks, seed=0, num_samples=16, batch_size=8)
        found = attack_share(assault, MemorySource(IMAGES, labels))
    lines = told_by_authors(found.warnings)
    assert len(lines) == bool(warning)
    assert all(line.startswith(f"AutoAttack's authors: {warning}") for line in lines)
    assert capfd.readouterr() == ("", "")


def test_warnings_that_differ_in_numbers_alone_are_one_whatever_rank_saw_them() -> None:
    seen = [
        Warned(batch=2, attack=0, text="7 points"),
        Warned(batch=1, attack=1, text="odd"),
        Warned(batch=1, attack=0, text="12 points"),
    ]
    expected = ["AutoAttack's authors: 12 points (2 times)", "AutoAttack's authors: odd"]
    assert told_by_authors(seen) == told_by_authors(seen[::-1]) == expected


NAMES = ("cat", "dog", "eel", "fox")


def _findings(labels: list[int], seen: list[int]) -> Findings:
    rows = [(index, *pair, 0, 0) for index, pair in enumerate(zip(labels, seen, strict=True))]
    return Findings(attacks=(), values=np.array(rows, np.float64))


CLASSES = {
    "all": ([0, 1, 2, 3], [0, 1, 1, 3], "", ""),
    "some_are_missing": ([0, 1, 1, 0], [0, 1, 1, 3], "", "2 of the 4 classes (eel, fox)"),
    "one_class": ([2, 2, 2], [2, 1, 2], "all 3 images are of class eel", ""),
    "always_the_same": ([0, 1, 2, 3], [1, 1, 1, 1], "takes every natural image for class dog", ""),
    "one_image": ([2], [2], "", "3 of the 4 classes (cat, dog, fox)"),
    "never_a_class": ([0, 1, 2, 3], [-1, -1, -1, -1], "the logits of 4 of 4 natural images", ""),
}


@pytest.mark.parametrize(
    ("labels", "seen", "doubt", "note"),
    [pytest.param(*case, id=name) for name, case in CLASSES.items()],
)
def test_classes_that_figures_say_nothing_of_are_told(
    labels: list[int], seen: list[int], doubt: str, note: str
) -> None:
    findings = _findings(labels, seen)
    doubts, notes = doubts_of(findings, NAMES), missing_classes(findings, NAMES)
    assert ([doubt in line for line in doubts], [note in line for line in notes]) == (
        [True] * bool(doubt),
        [True] * bool(note),
    )
