"""The numbers that training minimises."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import mixed_precision
from mpiadv.methods.objective import Batch, Loss
from mpiadv.methods.objectives import make_objective, num_clean
from mpiadv.process.errors import UserError
from mpiadv.settings import ObjectiveConfig


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4))


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 3, 3, generator=generator)
    return Batch(images=images, labels=torch.tensor([0, 1, 2, 3, 0, 1]))


def _weight_gradient(model: nn.Module, total: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(total, next(model.parameters()))
    return gradient


def test_adversarial_objective_is_the_mean_cross_entropy_of_the_images_as_crafted() -> None:
    model, batch = _model(), _batch()
    objective = make_objective(ObjectiveConfig())
    loss = objective(model, batch)
    expected = F.cross_entropy(model(batch.images), batch.labels)
    assert torch.equal(loss.total, expected)
    assert torch.equal(_weight_gradient(model, loss.total), _weight_gradient(model, expected))
    assert torch.equal(loss.logits, model(batch.images)) and not loss.logits.requires_grad
    assert not objective.needs_natural


def _natural_batch(*, num_clean: int = 0) -> Batch:
    batch, generator = _batch(), torch.Generator().manual_seed(2)
    natural = (batch.images + 0.1 * torch.randn(batch.images.shape, generator=generator)).clamp(
        0, 1
    )
    natural[:num_clean] = batch.images[:num_clean]
    return dataclasses.replace(batch, natural=natural)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_is_natural_cross_entropy_and_the_divergence_from_the_natural_predictions(
    beta: float,
) -> None:
    model, batch = _model(), _natural_batch()
    objective = make_objective(ObjectiveConfig(name="trades", beta=beta))
    loss = objective(model, batch)
    total = torch.zeros(())
    for image, natural, label in zip(batch.images, batch.natural, batch.labels, strict=True):
        p, q = (model(one[None]).softmax(dim=1)[0] for one in (natural, image))
        total = total - p[label].log() + beta * (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(loss.total, total / 6)
    ours, theirs = _weight_gradient(model, loss.total), _weight_gradient(model, total / 6)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(loss.logits, model(batch.images)) and not loss.logits.requires_grad
    assert (objective.needs_natural, objective.climb, objective.start) == (True, "kl", "gaussian")


def test_trades_takes_clean_images_as_natural_ones_without_divergence() -> None:
    model, batch = _model(), _natural_batch(num_clean=6)
    total = make_objective(ObjectiveConfig(name="trades"))(model, batch).total
    torch.testing.assert_close(total, F.cross_entropy(model(batch.images), batch.labels))


def test_trades_moves_statistics_of_batch_norm_by_natural_images_then_by_adversarial_ones() -> None:
    batch, layer = _natural_batch(), nn.BatchNorm2d(1)
    ours = nn.Sequential(copy.deepcopy(layer), _model())
    make_objective(ObjectiveConfig(name="trades"))(ours, batch)
    for images in (batch.natural, batch.images):
        layer(images)
    for expected, found in zip(layer.buffers(), ours.buffers(), strict=True):
        assert torch.equal(found, expected)


def test_mart_is_as_its_authors_have_it() -> None:
    """Their `mart.py`, the loss alone."""
    model, batch = _model(), _natural_batch(num_clean=1)
    loss = make_objective(ObjectiveConfig(name="mart"))(model, batch)
    assert batch.natural is not None
    natural, attacked = model(batch.natural), model(batch.images)
    p, q = natural.softmax(dim=1), attacked.softmax(dim=1)
    order = q.argsort(dim=1)[:, -2:]
    wrong = torch.where(order[:, 1] == batch.labels, order[:, 0], order[:, 1])
    boosted = F.cross_entropy(attacked, batch.labels)
    boosted = boosted + F.nll_loss(torch.log(1.0001 - q + 1e-12), wrong)
    divergence = nn.KLDivLoss(reduction="none")(torch.log(q + 1e-12), p).sum(dim=1)
    right = p.gather(1, batch.labels[:, None]).squeeze(1)
    total = boosted + 5.0 * (divergence * (1.0000001 - right)).sum() / 6
    _assert_same_loss(model, loss, total)


def test_alp_is_cross_entropy_of_both_and_the_distance_of_paired_logits() -> None:
    model, batch = _model(), _natural_batch()
    config = ObjectiveConfig(name="alp", label_smoothing=0.1)
    loss = make_objective(config)(model, batch)
    assert batch.natural is not None
    natural, attacked = model(batch.natural), model(batch.images)
    both, labels = torch.cat([natural, attacked]), batch.labels.repeat(2)
    total = F.cross_entropy(both, labels, label_smoothing=0.1)
    total = total + 0.5 * (natural - attacked).square().mean()
    _assert_same_loss(model, loss, total)


def test_score_is_trades_with_squared_errors() -> None:
    model, batch = _model(), _natural_batch()
    loss = make_objective(ObjectiveConfig(name="score", label_smoothing=0.2))(model, batch)
    assert batch.natural is not None
    p, q = (model(images).softmax(dim=1) for images in (batch.natural, batch.images))
    labels = 0.8 * F.one_hot(batch.labels, 4) + 0.2 / 4
    total = ((p - labels) ** 2).sum(1).mean() + 5.0 * ((p - q) ** 2).sum(1).mean()
    _assert_same_loss(model, loss, total)


def test_margin_objective_is_torchs_hinge_at_the_best_wrong_class() -> None:
    model, batch = _model(), _batch()
    loss = make_objective(ObjectiveConfig(name="margin"))(model, batch)
    logits, total = model(batch.images), torch.zeros(())
    for row, label in zip(logits, batch.labels, strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])
        total = total + (1 + others.max() - row[label]).clamp(min=0) / 6
    _assert_same_loss(model, loss, total)


def test_labels_are_smoothed_where_that_is_asked_for() -> None:
    model, batch = _model(), _batch()
    loss = make_objective(ObjectiveConfig(label_smoothing=0.1))(model, batch)
    expected = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.1)
    assert torch.equal(loss.total, expected)


def _assert_same_loss(model: nn.Module, loss: Loss, total: Tensor) -> None:
    torch.testing.assert_close(loss.total, total)
    ours, theirs = _weight_gradient(model, loss.total), _weight_gradient(model, total)
    torch.testing.assert_close(ours, theirs)
    assert not loss.logits.requires_grad


@pytest.mark.parametrize(
    ("name", "climb", "start"),
    [
        ("mart", "ce", "gaussian"),
        ("alp", "ce", "uniform"),
        ("score", "squares", "uniform"),
        ("margin", "margin", "uniform"),
    ],
)
def test_objective_brings_the_climb_and_the_start_of_its_paper(
    name: str, climb: str, start: str
) -> None:
    objective = make_objective(ObjectiveConfig(name=name))
    assert (objective.climb, objective.start) == (climb, start)
    assert objective.needs_natural is (name != "margin")


@pytest.mark.parametrize(
    ("name", "beta"), [("trades", 6.0), ("mart", 5.0), ("alp", 0.5), ("score", 5.0)]
)
def test_weight_is_that_of_the_paper_unless_it_is_given(name: str, beta: float) -> None:
    assert ObjectiveConfig(name=name).beta == beta
    assert ObjectiveConfig(name=name, beta=2.0).beta == 2.0


def test_loss_is_taken_in_float32_under_autocast() -> None:
    with mixed_precision(torch.device("cpu"), "bfloat16"):
        loss = make_objective(ObjectiveConfig())(_model(), _batch())
    exact = make_objective(ObjectiveConfig())(_model(), _batch())
    assert loss.total.dtype == loss.logits.dtype == torch.float32
    assert torch.equal(loss.total, F.cross_entropy(loss.logits, _batch().labels))
    assert 0 < (loss.total - exact.total).abs() < 0.02


def test_broken_image_breaks_the_loss() -> None:
    batch = _batch()
    batch.images[2, 0, 1, 1] = float("nan")
    assert make_objective(ObjectiveConfig())(_model(), batch).total.isnan()


@pytest.mark.parametrize(
    ("clean_fraction", "batch_size", "expected"),
    [(0.0, 128, 0), (1.0, 128, 128), (0.5, 128, 64), (0.3, 10, 3), (0.2, 128, 26), (0.001, 128, 0)],
)
def test_clean_part_is_the_nearest_whole_number(
    clean_fraction: float, batch_size: int, expected: int
) -> None:
    assert num_clean(ObjectiveConfig(clean_fraction=clean_fraction), batch_size) == expected


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(UserError, match="unknown objective 'adversary': did you mean"):
        make_objective(ObjectiveConfig(name="adversary"))
