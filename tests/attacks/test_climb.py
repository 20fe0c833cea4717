"""The slope that attacks climb, in a model's eyes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mpiadv.attacks import LOSSES, AttackLoss, Climb, Slope, forward
from mpiadv.attacks.losses import summed_kl

LABELS = torch.tensor([0, 1, 2, 1, 0])
NAMES = pytest.mark.parametrize("name", sorted(LOSSES))


def _images(seed: int = 0) -> Tensor:
    return torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def _model(*, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4) if batch_norm else nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def _climb(model: nn.Module, rows: slice = slice(None), **changes: Any) -> Climb:
    values = {"precision": "float32", "loss": None, "labels": LABELS[rows], "natural_seed": 0}
    return Climb(model=model, **{"natural": _images(9)[rows], **values, **changes})


def _slope(model: nn.Module, **changes: Any) -> Slope:
    return _climb(model, **changes).slope(_images(), seed=0)


class _WeightGradients(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records for every convolution's backward which gradients were asked for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("requires_grad", [False, True], ids=["frozen", "training"])
def test_no_gradient_of_a_weight_is_computed(requires_grad: bool) -> None:
    model = _model().requires_grad_(requires_grad)
    with _WeightGradients() as seen:
        _slope(model)
    assert seen.masks == [[True, False, False]] * 2
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@NAMES
def test_gradient_comes_with_its_logits_in_float32(precision: Any, name: str) -> None:
    model = _model().requires_grad_(False)
    with torch.no_grad():  # the gradient has to come whatever the caller's mode
        gradient, logits, labels = _slope(model, precision=precision, loss=LOSSES[name])
    exact = _slope(model, loss=LOSSES[name])
    assert gradient.dtype == logits.dtype == torch.float32
    assert not logits.requires_grad and torch.equal(labels, LABELS)
    assert torch.allclose(logits, exact.logits, atol=2e-2)
    assert F.cosine_similarity(gradient.flatten(), exact.gradient.flatten(), dim=0) > 0.95
    assert torch.equal(gradient, exact.gradient) == (precision == "float32")


@NAMES
def test_gradient_of_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model, one = _model(), slice(2, 3)
    whole = _climb(model, loss=LOSSES[name]).slope(_images(), seed=0)
    alone = _climb(model, one, loss=LOSSES[name]).slope(_images()[one], seed=0)
    assert torch.allclose(whole.gradient[one], alone.gradient, rtol=1e-4, atol=1e-7)


def test_own_loss_is_climbed_in_place_of_cross_entropy() -> None:
    model, images = _model(), _images()
    loss = AttackLoss(name="third", function=lambda logits, labels: logits[:, 2].sum())
    gradient = _slope(model, loss=loss).gradient
    images.requires_grad_()
    (expected,) = torch.autograd.grad(model(images)[:, 2].sum(), images)
    assert torch.equal(gradient, expected)


def test_divergence_is_that_of_the_natural_predictions() -> None:
    model, images = _model(), _images().requires_grad_()
    natural = model(_images(9)).softmax(dim=1).detach()
    total = (natural * (natural.log() - model(images).log_softmax(dim=1))).sum()
    (expected,) = torch.autograd.grad(total, images)
    assert torch.allclose(_slope(model, loss=LOSSES["kl"]).gradient, expected, atol=1e-7)


def test_divergence_of_sure_predictions_has_a_finite_slope_on_both_sides() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    natural = logits.detach().flip(0).requires_grad_()
    total = summed_kl(logits, natural)
    assert total.isfinite()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(total, (logits, natural)))


class _Counting(nn.Sequential):
    """Counts the batches that pass through it."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(images)  # type: ignore[no-any-return]


def test_natural_prediction_is_made_once_for_each_version() -> None:
    model = _Counting(_model(), nn.Dropout()).train()
    climb = _climb(model, loss=LOSSES["kl"])
    slopes = [climb.slope(_images(), seed=step, version=step // 3) for step in range(6)]
    assert model.passes == 6 + 2
    for step, slope in enumerate(slopes):
        alone = _climb(model, loss=LOSSES["kl"]).slope(_images(), seed=step)
        assert torch.equal(slope.gradient, alone.gradient)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@NAMES
def test_slope_leaves_statistics_of_batch_norm_as_they_were(training: bool, name: str) -> None:
    model = _model(batch_norm=True).train(training)
    before = [buffer.clone() for buffer in model.buffers()]
    _slope(model, loss=LOSSES[name])
    assert len(before) == 3
    assert all(torch.equal(*pair) for pair in zip(model.buffers(), before, strict=True))


def test_weights_that_changed_are_cast_anew_inside_another_autocast() -> None:
    model, images = _model(), _images()
    with torch.autocast("cpu", enabled=False):  # as training from Python has around it
        before = forward(model, images, precision="bfloat16", seed=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        inside = forward(model, images, precision="bfloat16", seed=0)
    alone = forward(model, images, precision="bfloat16", seed=0)
    assert torch.equal(inside, alone) and not torch.equal(inside, before)
