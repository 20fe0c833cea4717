"""How models lie in memory: chosen by rule, the same function, whatever way images lie."""

import copy

import pytest
import torch
from small_models import RandomAlways
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.models import FlatState, choose_format, fingerprint, lay_out
from mpiadv.models.preact_resnet import PreActResNet
from mpiadv.models.small import digits, mnist
from mpiadv.process.errors import UserError
from mpiadv.settings import Precision

CPU = torch.device("cpu")
LARGE = (3, 16, 16)


class Flattening(nn.Module):
    """Takes its features to be contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.dense = nn.Linear(4 * 14 * 14, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        logits: Tensor = self.dense(features.view(len(features), -1))
        return logits


class FlatteningInTraining(Flattening):
    """As it, with a head beside that only training looks at."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        logits: Tensor = self.dense(features.flatten(1))
        return logits + 0.1 * self.dense(features.view(len(features), -1)) * self.training


class Strided(Flattening):
    """Reads its features as they lie."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        size = features[0].numel()
        logits: Tensor = self.dense(features.as_strided((len(features), size), (size, 1)))
        return logits


class StridedInTraining(Strided):
    """Reads its features as they lie, while it trains alone."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return super().forward(images)
        logits: Tensor = self.dense(self.convolution(images).flatten(1))
        return logits


class StridedInThousands(Strided):
    """As it, and only of thousands of images together."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) < 1000:
            raise ValueError("too few")
        return super().forward(images)


class StridedUnderDropout(StridedInTraining):
    """As it, and what it computes while it trains is random."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Dropout(0.1), self.dense)


class TiedByMemory(nn.Module):
    """Two layers whose weights are two parameters, and one piece of memory."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1, bias=bias) for _ in range(2))
        self.second.weight.data = self.first.weight.data
        self.dense = nn.Linear(3, 5, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.second(self.first(images).relu()).mean((2, 3)))
        return logits


class Homogeneous(TiedByMemory):
    """As it, and twice the one weight for half the other gives the same."""

    def __init__(self) -> None:
        super().__init__(bias=False)


class WithWholeNumbers(nn.Module):
    """Has a parameter without fractions, which nothing trains."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(2).flip(0), requires_grad=False)
        self.convolution, self.dense = nn.Conv2d(3, 2, 3), nn.Linear(2, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images).mean((2, 3))
        logits: Tensor = self.dense(features[:, self.order])
        return logits


class Ending(Flattening):
    """Ends the program where features lie otherwise than it likes."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        if not features.is_contiguous():
            raise SystemExit(3)
        logits: Tensor = self.dense(features.flatten(1))
        return logits


class Scripted(nn.Module):
    """Takes no hooks."""

    def __new__(cls) -> nn.Module:  # type: ignore[misc]
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
        return torch.jit.script(layers)  # type: ignore[no-any-return, no-untyped-call]


class WithVolumes(nn.Module):
    """Has weights of five dimensions, which no format of four fits."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.volume = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, 3)
        self.dense = nn.Linear(2, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.volume(self.flat(images)[:, None]).mean((2, 3, 4)))
        return logits


MISFITS = [
    Flattening, FlatteningInTraining, Strided, StridedInTraining, StridedUnderDropout, TiedByMemory,
    Homogeneous, Ending, Scripted, WithVolumes,
]  # fmt: skip


class RandomConvolution(nn.Sequential):
    """Noise, in evaluation mode too, before features are read as they lie."""

    def __init__(self) -> None:
        super().__init__(RandomAlways(), Strided())


UNSEEN = [StridedInThousands, RandomConvolution]
"""Of which few images do not show what they compute."""


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return PreActResNet(num_classes=5, image_shape=LARGE)


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))


def small() -> nn.Module:
    return digits(num_classes=5, image_shape=(1, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (resnet, LARGE, "channels_last"),
        (WithWholeNumbers, LARGE, "channels_last"),
        *((unseen, LARGE, "contiguous") for unseen in UNSEEN),
        *((misfit, LARGE, "contiguous") for misfit in MISFITS),
        (dense, LARGE, "contiguous"),
        (small, (1, 8, 8), "contiguous"),
    ],
)
def test_channels_come_last_where_that_is_faster_and_the_model_can(
    build: type[nn.Module], shape: tuple[int, int, int], expected: str
) -> None:
    assert choose_format("auto", build, shape, device=CPU, precision="float32") == expected


@pytest.mark.parametrize("build", UNSEEN)
def test_what_few_images_do_not_show_is_taken_at_its_word(build: type[nn.Module]) -> None:
    chosen = choose_format("channels_last", build, LARGE, device=CPU, precision="float32")
    assert chosen == "channels_last"


@pytest.mark.parametrize(
    ("precision", "on_gpu"), [("float32", "contiguous"), ("bfloat16", "channels_last")]
)
def test_on_a_gpu_channels_come_last_in_bfloat16_alone(precision: Precision, on_gpu: str) -> None:
    gpu = torch.device("cuda")
    assert choose_format("auto", resnet, LARGE, device=gpu, precision=precision) == on_gpu


@pytest.mark.parametrize("wanted", ["contiguous", "channels_last"])
def test_what_is_asked_for_is_chosen(wanted: str) -> None:
    shape = (1, 8, 8)
    assert choose_format(wanted, small, shape, device=CPU, precision="float32") == wanted  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("build", MISFITS)
def test_what_a_model_cannot_do_is_refused_with_what_it_says(build: type[nn.Module]) -> None:
    with pytest.raises(
        UserError, match=r"=channels_last: model .* (fails: .*|computes something else): use"
    ):
        choose_format("channels_last", build, LARGE, device=CPU, precision="float32")


class Broken(Flattening):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("in any format")


def test_model_that_fails_in_any_format_is_left_to_its_own_trial() -> None:
    chosen = choose_format("channels_last", Broken, LARGE, device=CPU, precision="float32")
    assert chosen == "channels_last"


def test_choosing_leaves_the_random_streams_as_they_were() -> None:
    model = nn.Sequential(RandomAlways(), nn.Conv2d(3, 2, 3), nn.Flatten())
    before = torch.get_rng_state()
    chosen = choose_format("auto", lambda: model, (3, 32, 8), device=CPU, precision="float32")
    assert chosen == "contiguous"
    assert torch.equal(torch.get_rng_state(), before)


def looked(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.detach().requires_grad_()
    logits = model(images)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, logits.argmax(1)), images)
    return logits.detach(), gradient


def one_channel() -> nn.Module:
    torch.manual_seed(0)
    return mnist(num_classes=10, image_shape=(1, 28, 28), width=0.25, initialization="torch")


@pytest.mark.parametrize(("build", "shape"), [(resnet, LARGE), (one_channel, (1, 28, 28))])
def test_bits_do_not_depend_on_how_images_lie(
    build: type[nn.Module], shape: tuple[int, ...]
) -> None:
    model = lay_out(build().eval(), "channels_last")
    images = torch.rand(4, *shape)
    expected = looked(model, images)
    for lying in (
        images.to(memory_format=torch.channels_last),
        images.transpose(2, 3).contiguous().transpose(2, 3),
        images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2),
    ):
        assert all(map(torch.equal, expected, looked(model, lying)))
    assert all(map(torch.equal, expected, looked(copy.deepcopy(model), images)))


def test_layout_changes_sums_alone() -> None:
    images = torch.rand(4, *LARGE)
    plain, laid_out = (looked(lay_out(resnet().eval(), each), images)
                       for each in ("contiguous", "channels_last"))  # fmt: skip
    torch.testing.assert_close(plain, laid_out, rtol=1e-3, atol=1e-5)


def test_messages_and_hashes_do_not_know_of_it() -> None:
    plain, laid_out = resnet(), lay_out(resnet(), "channels_last")
    assert laid_out.blocks[0].conv1.weight.stride() != plain.blocks[0].conv1.weight.stride()  # type: ignore[index, union-attr]
    assert fingerprint(laid_out) == fingerprint(plain)
    sent, received = FlatState(laid_out), FlatState(plain)
    assert sent.num_bytes == received.num_bytes
    with torch.no_grad():
        for parameter in laid_out.parameters():
            parameter.add_(torch.rand_like(parameter))
    flat = torch.zeros(sent.num_bytes, dtype=torch.uint8)
    sent.pack(flat)
    received.unpack(flat)
    assert fingerprint(laid_out) == fingerprint(plain)


def test_mnist_pools_before_it_rectifies_and_is_the_same_function() -> None:
    model = one_channel().eval()
    layers = list(model.children())
    for first in (1, 4):
        layers[first], layers[first + 1] = layers[first + 1], layers[first]
    as_published = nn.Sequential(*layers)
    assert [type(layer) for layer in as_published[1:3]] == [nn.ReLU, nn.MaxPool2d]
    images = torch.rand(8, 1, 28, 28).round(decimals=1)
    assert all(map(torch.equal, looked(model, images), looked(as_published, images)))
