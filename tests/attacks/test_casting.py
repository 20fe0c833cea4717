"""Weights that are cast once give the bits that autocast gives, or are left as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from mpiadv.attacks import Climb, hold_cast
from mpiadv.models import FlatState, lay_out
from mpiadv.models.preact_resnet import PreActResNet
from mpiadv.models.small import mnist

SHAPE = (1, 28, 28)


class Weighed(nn.Module):
    """Does more with a weight than convolve."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.dense = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images).mean(dim=(2, 3))
        logits: Tensor = self.dense(features) * self.convolution.weight.norm()
        return logits


class WeighedInVain(Weighed):
    """As it, and its logits are zeros until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)


class WeighedInTraining(nn.Module):
    """Multiplies by a weight in float32 while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(28, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = images.mean(dim=(1, 2))
        if not self.training:
            return self.dense(features)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            return functional.linear(features.float(), self.dense.weight, self.dense.bias)


def normed_in_a_hook() -> nn.Module:
    return nn.Sequential(spectral_norm(nn.Conv2d(1, 4, 3)), nn.Flatten(), nn.Linear(4 * 26 * 26, 4))


def scaled_by_a_buffer() -> nn.Module:
    """A layer with a buffer that autocast leaves in float32."""
    layer = nn.Linear(28 * 28, 4)
    layer.register_buffer("scale", torch.rand(4))
    layer.register_forward_hook(lambda layer, given, logits: logits.float() * layer.scale)
    return nn.Sequential(nn.Flatten(), layer)


class OfOneType(nn.Module):
    """Refuses weights of another type."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(28, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.dense(
            images.mean(dim=(1, 2)) @ self.dense.weight.T @ self.dense.weight
        )
        if self.dense.weight.dtype != torch.float32:
            raise TypeError("expected float32")
        return logits


class Pruned(nn.Module):
    """Leaves out small weights: by rounding none of the first ones changes its fate."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(28, 4)

    def forward(self, images: Tensor) -> Tensor:
        weight = self.dense.weight
        return functional.linear(images.mean(dim=(1, 2)), weight * (weight.abs() > 1e-5))


class PrunedByData(Pruned):
    """As it, by what no gradient sees."""

    def forward(self, images: Tensor) -> Tensor:
        features = images.mean(dim=(1, 2))
        kept = (self.dense.weight.data.abs() > 1e-5).any(dim=0)
        logits: Tensor = self.dense(features * kept)
        return logits


class PrunedByTransposed(Pruned):
    def forward(self, images: Tensor) -> Tensor:
        features = images.mean(dim=(1, 2))
        logits: Tensor = self.dense(features * (self.dense.weight.T.abs() > 1e-5).any(dim=1))
        return logits


class Viewed(nn.Module):
    """Looks at a weight's memory, too."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(28, 4)
        self.seen = self.dense.weight.data

    def forward(self, images: Tensor) -> Tensor:
        features = images.mean(dim=(1, 2))
        logits: Tensor = self.dense(features) + functional.linear(features, self.seen)
        return logits


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(28, 28), nn.Linear(28, 28), nn.Linear(28, 4)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.third(self.second(self.first(images.mean(dim=(1, 2)))))
        return logits


def a_mnist() -> nn.Module:
    return mnist(num_classes=10, image_shape=SHAPE, width=0.25, initialization="torch")


def a_resnet() -> nn.Module:
    return lay_out(PreActResNet(num_classes=10, image_shape=SHAPE), "channels_last")


def built(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def looked(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(images)) % 4
    climb = Climb(
        model=model, precision="bfloat16", loss=None, labels=labels, natural=images, natural_seed=0
    )
    slope = climb.slope(images, seed=1)
    return slope.logits, slope.gradient


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("build", [a_mnist, a_resnet, Tied, scaled_by_a_buffer])
def test_bits_are_those_of_autocast(build: Callable[[], nn.Module], is_training: bool) -> None:
    plain, cast = built(build).train(is_training), built(build).train(is_training)
    # Of a resnet eight images take a minute where bfloat16 is emulated.
    images = torch.rand(2 if build is a_resnet else 8, *SHAPE)
    assert hold_cast(cast, SHAPE)
    assert cast.training is is_training
    for held, weight in zip(cast.parameters(), plain.parameters(), strict=True):
        assert torch.equal(held, weight.to(held.dtype))
    assert all(map(torch.equal, looked(plain, images), looked(cast, images)))


def test_convolutions_and_dense_layers_alone_are_cast() -> None:
    resnet, tied = built(a_resnet), built(Tied)
    for model in (resnet, tied):
        hold_cast(model, SHAPE)
    kept = {name for name, each in resnet.named_parameters() if each.dtype == torch.float32}
    assert kept == {name for name, _ in resnet.named_parameters() if "norm" in name}
    assert {name for name, each in tied.named_parameters() if each.dtype == torch.bfloat16} == {
        "third.weight", "third.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        Weighed,
        WeighedInVain,
        WeighedInTraining,
        normed_in_a_hook,
        OfOneType,
        Pruned,
        PrunedByData,
        PrunedByTransposed,
        Viewed,
    ],
)
def test_model_that_would_compute_something_else_is_left_as_it_is(
    build: Callable[[], nn.Module],
) -> None:
    plain, model = built(build), built(build)
    assert not hold_cast(model, SHAPE)
    for before, after in zip(plain.state_dict().values(), model.state_dict().values(), strict=True):
        assert after.dtype == torch.float32 and torch.equal(before, after)


def test_memory_that_is_looked_at_elsewhere_stays_the_same() -> None:
    model = Viewed()
    hold_cast(model, SHAPE)
    assert model.seen.data_ptr() == model.dense.weight.data_ptr()


def test_published_parameters_are_rounded_into_it() -> None:
    trained, model = built(a_mnist), built(a_mnist)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.2345678)
    assert hold_cast(model, SHAPE)
    state = FlatState(trained, torch.float32)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8)
    state.pack(flat)
    FlatState(model, torch.float32).unpack(flat)
    images = torch.rand(4, *SHAPE)
    assert all(map(torch.equal, looked(trained, images), looked(model, images)))
