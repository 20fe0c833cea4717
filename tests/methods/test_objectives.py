"""The numbers that training minimises."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import mixed_precision
from mpiadv.methods.objectives import Batch, make_objective, num_clean
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
