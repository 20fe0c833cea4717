"""Evaluation gives the same numbers for any number of ranks, and leaves the model as it was."""

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import Attack, make_attack
from mpiadv.contract.tickets import AttackSettings, Purpose, choose_samples, seed_for
from mpiadv.evaluation import Counts, attack_images, evaluate
from mpiadv.settings import AttackConfig


class _Source:
    """Random images in memory; labels by the side that is brighter."""

    num_samples = 50

    def __init__(self) -> None:
        self.images = torch.rand(50, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        left, right = self.images[..., :3].sum((1, 2, 3)), self.images[..., 3:].sum((1, 2, 3))
        self.labels = (left > right).long()

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(indices)
        return self.images[chosen], self.labels[chosen]


def _model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(96, 2),
    )  # fmt: skip


class _Linear(nn.Module):
    """Knows the rule of the labels; a perturbation of epsilon moves the margin by 36 epsilon."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images[..., :3].sum((1, 2, 3)) - images[..., 3:].sum((1, 2, 3))
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _attack(**changes: Any) -> Attack:
    config = AttackConfig(**{"epsilon": 0.05, "num_steps": 3, **changes})
    return make_attack(config, AttackSettings(num_steps=config.num_steps, epsilon=config.epsilon))


def _evaluate(model: nn.Module | None = None, **changes: Any) -> Counts:
    options: dict[str, Any] = {
        "attack": _attack(), "seed": 7, "num_samples": 45, "batch_size": 10,
        "precision": "float32", **changes,
    }  # fmt: skip
    (counts,) = evaluate([model or _model()], _Source(), **options)
    return counts


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_shares_of_any_number_of_ranks_add_up_to_the_same_bits(size: int, norm: str) -> None:
    attack = _attack(norm=norm)
    alone = _evaluate(attack=attack)
    shares = [_evaluate(attack=attack, share=(rank, size)) for rank in range(size)]
    together = Counts(rows=sum(share.rows for share in reversed(shares)))  # type: ignore[arg-type]
    assert np.array_equal(together.rows, alone.rows)
    assert together.adversarial_loss == alone.adversarial_loss
    assert together.num_samples == sum(share.rows[:, 0].sum() for share in shares) == 45


class _Random(nn.Module):
    """Draws from every stream that a model may draw from; remembers what."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _model().requires_grad_(False)
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn_like(images) * random.uniform(0.5, 1) + np.random.normal()
        self.drawn.append(float(noise.flatten()[0]))
        logits: Tensor = self.inner(images + 0.1 * noise)
        return logits


def test_random_model_has_the_same_figures_on_any_number_of_ranks_and_every_time() -> None:
    alone = _evaluate(_Random())
    shares = [_evaluate(_Random(), share=(rank, 3)) for rank in range(3)]
    assert np.array_equal(sum(share.rows for share in shares), alone.rows)
    assert torch.equal(_snapshot(_Random()), _snapshot(_Random()))


@pytest.mark.parametrize(("most_at_once", "pieces"), [(128, 1), (4, 3), (1, 10)])
def test_random_model_draws_anew_on_every_pass(
    monkeypatch: pytest.MonkeyPatch, most_at_once: int, pieces: int
) -> None:
    monkeypatch.setattr("mpiadv.evaluation.crafting.MOST_ON_CPU", most_at_once)
    model = _Random()
    _evaluate(model, num_samples=40)
    assert len(set(model.drawn)) == len(model.drawn) == 4 * pieces * (3 + 2)


def test_linear_model_has_the_accuracy_that_its_margins_say() -> None:
    source, epsilon = _Source(), 0.05
    left, right = source.images[..., :3], source.images[..., 3:]
    sign = torch.where(source.labels == 1, 1.0, -1.0)[:, None, None, None]
    worst_left = (left - epsilon * sign).clamp(0, 1).sum((1, 2, 3))
    worst_right = (right + epsilon * sign).clamp(0, 1).sum((1, 2, 3))
    robust = ((worst_left > worst_right).long() == source.labels).float().mean()
    counts = _evaluate(_Linear(), attack=_attack(num_steps=10), num_samples=50)
    assert counts.natural_accuracy == 100
    assert counts.adversarial_accuracy == pytest.approx(100 * robust.item())
    assert 0 < counts.adversarial_accuracy < 100


def test_losses_are_means_over_the_images() -> None:
    model, source = _model().eval(), _Source()
    counts = _evaluate(model, attack=_attack(num_steps=0, random_start=False))
    with torch.no_grad():
        chosen = choose_samples(50, 45)
        expected = F.cross_entropy(model(source.images[chosen]), source.labels[chosen])
    assert counts.natural_loss == pytest.approx(expected.item(), rel=1e-5)
    assert counts.adversarial_loss == counts.natural_loss
    assert counts.adversarial_accuracy == counts.natural_accuracy


def test_attack_raises_the_loss() -> None:
    counts = _evaluate()
    assert counts.adversarial_loss > counts.natural_loss
    assert counts.adversarial_accuracy <= counts.natural_accuracy


def test_more_images_than_there_are_means_all() -> None:
    assert _evaluate(num_samples=1000).num_samples == 50


def test_random_start_follows_the_seed() -> None:
    assert np.array_equal(_evaluate(seed=1).rows, _evaluate(seed=1).rows)
    assert not np.array_equal(_evaluate(seed=1).rows, _evaluate(seed=2).rows)


def test_batches_draw_different_starts() -> None:
    model, source = _model(), _Source()
    first, second = choose_samples(50, 20).reshape(2, 10)
    source.images[second] = source.images[first]
    source.labels[second] = source.labels[first]
    (counts,) = evaluate(
        [model], source, _attack(), seed=0, num_samples=20, batch_size=10, precision="float32"
    )
    assert counts.rows[0, 3] == counts.rows[1, 3]
    assert counts.rows[0, 4] != counts.rows[1, 4]


def test_bfloat16_comes_near_float32() -> None:
    exact, reduced = _evaluate(), _evaluate(precision="bfloat16")
    assert reduced.natural_loss != exact.natural_loss
    assert reduced.natural_loss == pytest.approx(exact.natural_loss, rel=0.02)
    assert reduced.adversarial_loss == pytest.approx(exact.adversarial_loss, rel=0.02)


def test_between_steps_is_called_after_every_attack_step() -> None:
    calls = []
    _evaluate(between_steps=lambda: calls.append(1), share=(1, 2))
    assert len(calls) == 3 * 2  # rank 1 of 2 has batches 1 and 3 of 0 to 4


class _Interrupted(Exception):
    pass


def _interrupt() -> None:
    raise _Interrupted


@pytest.mark.parametrize("interrupted", [False, True], ids=["finished", "interrupted"])
def test_model_is_left_as_it_was(interrupted: bool) -> None:
    model = _model().train()
    model[1].eval()  # type: ignore[index]
    weight, bias = list(model.parameters())[:2]
    bias.requires_grad_(False)
    weight.grad = torch.ones_like(weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if interrupted:
        with pytest.raises(_Interrupted):
            _evaluate(model, between_steps=_interrupt)
    else:
        _evaluate(model)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_model_is_attacked_in_evaluation_mode_without_weight_gradients() -> None:
    model = _model().train()
    seen: set[bool] = set()

    def look() -> None:
        seen.update(module.training for module in model.modules())
        seen.update(parameter.requires_grad for parameter in model.parameters())

    _evaluate(model, between_steps=look)
    assert seen == {False}


def test_global_random_numbers_are_left_alone() -> None:
    model = _model()
    before = torch.get_rng_state()
    _evaluate(model)
    _snapshot(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_broken_model_scores_nothing_and_shows_it() -> None:
    model = _model()
    next(model.parameters()).data[:] = float("nan")
    counts = _evaluate(model)
    assert counts.natural_accuracy == counts.adversarial_accuracy == 0
    assert np.isnan(counts.natural_loss) and np.isnan(counts.adversarial_loss)


INDICES = np.array([4, 40, 17], dtype=np.int64)


def _snapshot(model: nn.Module, **changes: Any) -> Tensor:
    return attack_images(model, _Source(), _attack(**changes), INDICES, seed=5, precision="float32")


def test_snapshot_attacks_the_chosen_images() -> None:
    model, natural = _model(), _Source().images[INDICES]
    taken = _snapshot(model)
    distance = (taken - natural).abs().amax((1, 2, 3))
    assert taken.dtype == torch.float32
    assert torch.allclose(distance, torch.tensor(0.05))


def test_snapshots_differ_by_the_model_alone() -> None:
    other = _model()
    for parameter in other.parameters():
        parameter.data.neg_()
    assert torch.equal(_snapshot(_model()), _snapshot(_model()))
    assert not torch.equal(_snapshot(_model()), _snapshot(other))
    same_start = [_snapshot(model, num_steps=0) for model in (_model(), other)]
    assert torch.equal(*same_start)


def test_start_of_a_batch_is_drawn_from_its_published_seed() -> None:
    attack, source = _attack(num_steps=0), _Source()
    images, labels = source.batch(choose_samples(50, 45)[10:20])
    generator = torch.Generator().manual_seed(seed_for(7, Purpose.EVALUATION, 1))
    start = attack.start(images, generator)
    with torch.no_grad():
        logits = _model().eval()(start)
    expected = F.cross_entropy(logits, labels, reduction="none").double().sum()
    assert _evaluate(attack=attack).rows[1, 4] == expected.item()


def test_network_gets_few_images_at_once_and_finds_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, model = list[int](), _model()
    model.register_forward_pre_hook(lambda layer, images: given.append(len(images[0])))
    whole = _evaluate(model, batch_size=45)
    assert max(given) == 45
    monkeypatch.setattr("mpiadv.evaluation.crafting.MOST_ON_CPU", 20)
    given.clear()
    pieces = _evaluate(model, batch_size=45)
    assert set(given) == {20, 5}
    np.testing.assert_allclose(pieces.rows, whole.rows, rtol=1e-4)
