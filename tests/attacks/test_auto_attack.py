"""AutoAttack here is AutoAttack as its authors published it."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from mpiadv.attacks.auto_attack import COMPONENTS, run_component
from mpiadv.contract.tickets import Purpose, seed_for
from mpiadv.evaluation import frozen
from mpiadv.evaluation.attack_specs import read_attacks
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Assault, attack_share
from mpiadv.process.errors import UserError

NUM_IMAGES, EPSILON = 16, 0.1


class _Images:
    num_samples = NUM_IMAGES

    def __init__(self, model: nn.Module) -> None:
        self.images = torch.rand(NUM_IMAGES, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.labels = model(self.images).argmax(dim=1)
        self.labels[0] = (self.labels[0] + 1) % 5

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 5))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square attack with few queries, on both sides: it would take seconds."""
    from pyautoattack import AutoAttack

    set_version = AutoAttack._set_version

    def fewer(self: Any, version: str = "standard") -> None:
        set_version(self, version)
        self.square.n_queries = 300

    monkeypatch.setattr(AutoAttack, "_set_version", fewer)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_figures_and_images_are_those_of_the_package_called_directly(norm: str) -> None:
    from pyautoattack import AutoAttack

    model = _model()
    images = _Images(model)
    epsilon = EPSILON if norm == "linf" else 3 * EPSILON
    attacks = read_attacks(["autoattack"], norm=norm, epsilon=epsilon, each_alone=False)
    assault = Assault(
        target=Classifier(model=model, precision="float32"), attacks=attacks, seed=3,
        num_samples=NUM_IMAGES, batch_size=NUM_IMAGES, keep_examples=True,
    )  # fmt: skip
    with frozen(model):
        found = attack_share(assault, images)
        seed = seed_for(3, Purpose.EVALUATION, 0, attacks[0].seed_key, 0)
        direct = AutoAttack(
            model, norm="Linf" if norm == "linf" else "L2", eps=epsilon, seed=seed, device="cpu"
        )
        direct.apgd_targeted.n_target_classes = direct.fab.n_target_classes = 4
        adversarial, seen = direct.run_standard_evaluation(images.images, images.labels)
    findings = Findings(attacks=attacks, values=found.values)
    assert 0 < findings.worst_case.count < findings.natural.count
    assert findings.worst_case.count == int((seen == images.labels).sum())
    broken = findings.is_right & (seen != images.labels).numpy()
    assert sorted(found.images) == np.flatnonzero(broken).tolist()
    for index, image in found.images.items():
        assert np.array_equal(image, adversarial[index].numpy())


@pytest.mark.parametrize("component", COMPONENTS[:3])
def test_global_random_numbers_are_left_alone(component: str) -> None:
    model = _model()
    images = _Images(model)
    before = torch.get_rng_state()
    with frozen(model):
        run_component(
            component, model, images.images[1:5], images.labels[1:5], norm="linf", epsilon=0.05,
            seed=1,
        )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)


class _Drawing(nn.Module):
    """A model whose logits are no matter of chance, though it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _model()
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("component", ["apgd-ce", "square"])
def test_attack_draws_its_own_numbers_whatever_the_model_draws(component: str) -> None:
    found, drawing = [], _Drawing()
    for model in (_model(), drawing):
        attacks = read_attacks([component], norm="linf", epsilon=EPSILON, each_alone=False)
        assault = Assault(
            target=Classifier(model=model, precision="float32"), attacks=attacks, seed=3,
            num_samples=NUM_IMAGES, batch_size=NUM_IMAGES, keep_examples=True,
        )  # fmt: skip
        with frozen(model):
            found.append(attack_share(assault, _Images(_model())))
    plain, drawn = (torch.tensor(one.values) for one in found)
    assert torch.equal(plain, drawn)
    one, other = (each.images for each in found)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[index], other[index]) for index in one)
    assert len(set(drawing.drawn)) == len(drawing.drawn) > 50


def test_missing_package_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError) as refusal:
        run_component(
            "square", _model(), torch.rand(1, 1, 6, 6), torch.tensor([0]), norm="linf",
            epsilon=0.1, seed=0,
        )  # fmt: skip
    assert str(refusal.value) == (
        "AutoAttack needs the package pyautoattack, which is not installed: "
        "pip install 'mpiadv[autoattack]'"
    )
