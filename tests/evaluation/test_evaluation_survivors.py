"""Attacks run on survivors only, and find the same for any number of ranks."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from mpiadv.attacks import Climb, Stand
from mpiadv.contract.tickets import Purpose, choose_samples, seed_for
from mpiadv.evaluation import frozen
from mpiadv.evaluation.attack_specs import AttackSpec, read_attacks
from mpiadv.evaluation.crafting import Classifier, is_admissible
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import (
    NUM_PLAIN,
    PER_ATTACK,
    Assault,
    Found,
    Progress,
    attack_share,
)

WORDS = ("fgsm", "pgd:steps=3,restarts=3", "cw:steps=2,norm=l2,epsilon=0.3", "pgd:norm=l1,steps=2,"
         "epsilon=2", "grid:angles=3,shifts=3,pixels=1")  # fmt: skip


class _Images:
    """Random images in memory; labels by the side that is brighter, a few of them wrong."""

    num_samples = 50

    def __init__(self) -> None:
        self.images = torch.rand(50, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        self.labels = _Brighter()(self.images).argmax(dim=1)
        self.labels[::12] = 1 - self.labels[::12]

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


class _Brighter(nn.Module):
    """Knows the rule of the labels; curved, so that where an attack starts matters."""

    def forward(self, images: Tensor) -> Tensor:
        curved = images + 0.1 * (60 * images).sin()
        margin = curved[..., :3].sum((1, 2, 3)) - curved[..., 3:].sum((1, 2, 3))
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _assault(*words: str, alone: bool = False, **changes: Any) -> Assault:
    sources = tuple(changes.get("sources", ()))
    attacks = read_attacks(
        words or WORDS, norm="linf", epsilon=0.05, each_alone=alone, sources=sources
    )
    target = Classifier(model=_Brighter(), precision="float32")
    settings: dict[str, Any] = {"seed": 7, "num_samples": 45, "batch_size": 10, **changes}
    return Assault(target=target, attacks=attacks, **settings)


def _findings(assault: Assault) -> Findings:
    found = attack_share(assault, _Images())
    return Findings(attacks=tuple(assault.attacks), values=found.values)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_of_any_number_of_ranks_add_up_to_the_same_bits(size: int) -> None:
    assault, images = _assault(keep_examples=True), _Images()
    alone = attack_share(assault, images)
    shares = [attack_share(assault, images, share=(rank, size)) for rank in range(size)]
    assert np.array_equal(sum(share.values for share in reversed(shares)), alone.values)
    kept = {index: image for share in shares for index, image in share.images.items()}
    assert len(kept) == len(alone.images) > 0
    for index, image in alone.images.items():
        assert np.array_equal(kept[index], image)


class _Noisy(_Brighter):
    """Another function on every pass."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


def test_random_model_is_broken_on_the_same_images_by_any_number_of_ranks() -> None:
    noisy = Classifier(model=_Noisy(), precision="float32")
    assault = replace(_assault(), target=noisy)
    alone = attack_share(assault, _Images())
    shares = [attack_share(assault, _Images(), share=(rank, 3)) for rank in range(3)]
    assert np.array_equal(sum(share.values for share in shares), alone.values)
    assert not np.array_equal(attack_share(_assault(), _Images()).values, alone.values)


def test_each_attack_runs_only_on_what_the_ones_before_left_standing() -> None:
    findings = _findings(_assault())
    standing = findings.is_right
    assert 0 < standing.sum() < 45
    for number in range(len(WORDS)):
        assert np.array_equal(findings.attacked(number), standing)
        standing = standing & ~findings.broken(number)
    assert findings.worst_case.count == standing.sum()
    assert len({int(findings.broken(number).sum()) for number in range(3)}) > 1


def test_each_restart_runs_only_on_survivors_and_the_rest_counts_as_saved() -> None:
    seen: list[Progress] = []
    assault = _assault("pgd:steps=4,restarts=5", num_samples=50, batch_size=50)
    found = attack_share(assault, _Images(), on_progress=seen.append)
    findings = Findings(attacks=tuple(assault.attacks), values=found.values)
    counts = [progress.num_standing for progress in seen]
    assert [progress.number for progress in seen] == [0, 1, 2, 3, 4]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] > 0
    assert findings.sample_steps(0) == 4 * sum(counts)
    assert findings.saved_sample_steps(0) == 4 * (5 * 50 - sum(counts))


def test_restarts_find_what_one_start_does_not() -> None:
    once, often = _findings(_assault("pgd:steps=3")), _findings(_assault("pgd:steps=3,restarts=9"))
    assert often.worst_case.count < once.worst_case.count


def test_attacks_alone_start_from_all_right_images_and_the_worst_case_holds_them_all() -> None:
    words = ("pgd:steps=3", "cw:steps=2,norm=l2,epsilon=0.3")
    together = _findings(_assault(*words, alone=True))
    for number, word in enumerate(words):
        assert np.array_equal(together.attacked(number), together.is_right)
        assert np.array_equal(together.broken(number), _findings(_assault(word)).broken(0))
    either = together.broken(0) | together.broken(1)
    assert together.worst_case.count == (together.is_right & ~either).sum()


def test_one_try_is_the_plain_attack_from_its_published_seed() -> None:
    assault = _assault("pgd:steps=10", num_samples=10)
    attack, (images, labels) = assault.attacks[0], _Images().batch(choose_samples(50, 10))
    seed = seed_for(7, Purpose.EVALUATION, 0, attack.seed_key, 0)
    climb = Climb(
        model=_Brighter(), precision="float32", loss=None, labels=labels, natural=images,
        natural_seed=0,
    )  # fmt: skip
    start = attack.attack.start(images, torch.Generator().manual_seed(seed))
    adversarial = attack.attack.run(climb.looking(itertools.count()), images, Stand(start))
    is_broken = (_Brighter()(adversarial).argmax(dim=1) != labels).numpy()
    findings = _findings(assault)
    assert np.array_equal(findings.broken(0), findings.is_right & is_broken)
    assert 0 < findings.broken(0).sum() < findings.is_right.sum()


def test_kept_images_are_misclassified_and_inside_the_ball() -> None:
    assault, images = _assault(keep_examples=True), _Images()
    found = attack_share(assault, images)
    findings = Findings(attacks=tuple(assault.attacks), values=found.values)
    assert set(found.images) == set(findings.indices[findings.broken_rows].tolist())
    for row in findings.broken_rows:
        index, attack = int(findings.indices[row]), assault.attacks[findings.first_breaker[row]]
        adversarial, natural = torch.from_numpy(found.images[index])[None], images.images[index]
        seen = findings.adversarial_predictions[row]
        assert _Brighter()(adversarial).argmax() == seen != images.labels[index]
        assert is_admissible(attack, natural[None], adversarial)
        assert findings.changes[row] == pytest.approx(
            float((adversarial - natural).norm()), rel=1e-6
        )


ADMISSIBLE = {
    "inside": ("linf", 0.1, 0.5, True),
    "on_the_edge": ("linf", 0.25, 0.5, True),
    "outside": ("linf", 0.26, 0.5, False),
    "outside_the_box": ("linf", 0.1, 0.95, False),
    "l2_inside": ("l2", 0.06, 0.5, True),
    "l2_outside": ("l2", 0.07, 0.5, False),
    "l1_inside": ("l1", 0.0156, 0.5, True),
    "l1_outside": ("l1", 0.0157, 0.5, False),
    "not_a_number": ("linf", float("nan"), 0.5, False),
}
"""Norm, change of each of 16 pixels, natural pixels, whether that proves anything at 0.25."""


@pytest.mark.parametrize(
    ("norm", "change", "pixel", "expected"),
    [pytest.param(*case, id=name) for name, case in ADMISSIBLE.items()],
)
def test_only_images_in_ball_and_box_prove_anything(
    norm: str, change: float, pixel: float, expected: bool
) -> None:
    natural = torch.full((1, 1, 4, 4), pixel)
    attack = AttackSpec(kind="pgd", norm=norm, epsilon=0.25)
    assert is_admissible(attack, natural, natural + change).item() is expected


def test_transferred_attack_is_crafted_on_its_source() -> None:
    class Contrary(_Brighter):
        def forward(self, images: Tensor) -> Tensor:
            return -super().forward(images)

    def broken_by(source: nn.Module) -> Found:
        sources = {"source": Classifier(model=source, precision="float32")}
        assault = _assault("pgd:steps=5,epsilon=0.03", sources=sources, alone=True)
        return attack_share(assault, _Images())

    same, contrary = broken_by(_Brighter()), broken_by(Contrary())
    own, transferred = NUM_PLAIN, NUM_PLAIN + PER_ATTACK
    assert np.array_equal(same.values[:, own:transferred], same.values[:, transferred:])
    assert contrary.values[:, transferred + 1].sum() < contrary.values[:, own + 1].sum()


def test_model_without_numbers_is_never_right() -> None:
    class Broken(_Brighter):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float("nan")

    model = Broken()
    attacks = read_attacks(WORDS, norm="linf", epsilon=0.05, each_alone=False)
    target = Classifier(model=model, precision="float32")
    assault = Assault(target=target, attacks=attacks, seed=0, num_samples=45, batch_size=10)
    with frozen(model):
        findings = _findings(assault)
    assert findings.natural.count == findings.worst_case.count == 0
    assert set(findings.natural_predictions) == {-1}
