"""Classifiers are the same bits for the same seed, and misfits are refused in one clear line."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from refusals import refusal
from torch import Tensor, nn

from mpiadv.models import build_model, check_model, fingerprint
from mpiadv.process.errors import UserError
from mpiadv.settings import ModelConfig

MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)

BUILT_IN = [
    pytest.param("mnist", MNIST, 3_274_634, id="mnist"),
    pytest.param("digits", DIGITS, 38_282, id="digits"),
    pytest.param("preact_resnet18", CIFAR, 11_172_170, id="preact_resnet18"),
    pytest.param("torchvision:resnet18", CIFAR, 11_181_642, id="torchvision"),
]


def build(name: str, image_shape: tuple[int, int, int], seed: int = 0, **fields: Any) -> nn.Module:
    config = ModelConfig(name=name, **fields)
    return build_model(config, num_classes=10, image_shape=image_shape, seed=seed)


@pytest.mark.parametrize(("name", "image_shape", "num_parameters"), BUILT_IN)
def test_model_has_the_published_size_and_gives_logits(
    name: str, image_shape: tuple[int, int, int], num_parameters: int
) -> None:
    model = build(name, image_shape)
    check_model(model, image_shape, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["mnist", "torchvision:resnet18"])
def test_seed_alone_decides_the_initial_bits(name: str) -> None:
    shape = MNIST if name == "mnist" else CIFAR
    first = fingerprint(build(name, shape, seed=1))
    torch.rand(3)
    assert fingerprint(build(name, shape, seed=1)) == first
    assert fingerprint(build(name, shape, seed=2)) != first


def test_building_and_checking_leave_the_global_generator_alone(
    user_module: Callable[[str], str],
) -> None:
    name = user_module(
        "class Noisy(nn.Linear):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images.flatten(1)) + torch.rand(1)\n"
        "def make(num_classes, image_shape): return Noisy(64, num_classes)\n"
    )
    before = torch.get_rng_state()
    check_model(build(f"{name}:make", DIGITS), DIGITS, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_width_multiplies_channels_and_units() -> None:
    model = build("mnist", MNIST, arguments={"width": 0.5})
    check_model(model, MNIST, 10)
    biases = [p.numel() for name, p in model.named_parameters() if name.endswith("bias")]
    assert biases == [16, 32, 512, 10]


def test_mnist_starts_from_the_initialisation_of_the_paper() -> None:
    model = build("mnist", MNIST)
    weights = torch.cat(
        [p.detach().flatten() for n, p in model.named_parameters() if "weight" in n]
    )
    biases = torch.cat([p.flatten() for n, p in model.named_parameters() if "bias" in n])
    assert float(weights.abs().max()) <= 0.2
    # A normal of 0.1 cut at two standard deviations has a standard deviation of 0.0880.
    assert float(weights.std()) == pytest.approx(0.0880, abs=0.0005)
    assert torch.equal(biases, torch.full_like(biases, 0.1))


@pytest.mark.parametrize("mean", [[0.2], [0.2, 0.3, 0.4]], ids=["shared", "per_channel"])
def test_normalisation_comes_before_the_classifier(mean: list[float]) -> None:
    plain = build("preact_resnet18", CIFAR).eval()
    normalised = build("preact_resnet18", CIFAR, mean=mean, std=[0.5] * len(mean)).eval()
    images = torch.rand(2, *CIFAR)
    by_hand = (images - torch.tensor(mean).reshape(-1, 1, 1)) / 0.5
    assert torch.equal(normalised(images), plain(by_hand))


def test_auxiliary_outputs_of_torchvision_models_are_off_in_training() -> None:
    model = build("torchvision:googlenet", (3, 64, 64)).train()
    assert isinstance(model(torch.rand(2, 3, 64, 64)), Tensor)


def test_user_function_receives_shape_classes_and_arguments(
    user_module: Callable[[str], str],
) -> None:
    name = user_module(
        "def make(num_classes, image_shape, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[2] * 8, width),"
        " nn.Linear(width, num_classes)).double()\n"
    )
    model = build(f"{name}:make", DIGITS, arguments={"width": 5})
    assert [tuple(p.shape) for p in model.parameters()] == [(5, 64), (5,), (10, 5), (10,)]
    assert next(model.parameters()).dtype == torch.float32


REFUSED_BUILDS = [
    pytest.param(
        {"name": "mnits"}, MNIST, "unknown model 'mnits': did you mean 'mnist'?", id="name"
    ),
    pytest.param(
        {"name": "torchvision:resnet19"},
        CIFAR,
        "unknown model 'torchvision:resnet19': did you mean 'torchvision:resnet1",
        id="torchvision",
    ),
    pytest.param(
        {"name": "mnist"},
        CIFAR,
        "'mnist' takes images of 1x28x28, but the data set has images of 3x32x32",
        id="mnist_shape",
    ),
    pytest.param(
        {"name": "digits"},
        MNIST,
        "'digits' takes images of 1x8x8, but the data set has images of 1x28x28",
        id="digits_shape",
    ),
    pytest.param(
        {"name": "mnist", "arguments": {"depth": 3}},
        MNIST,
        "unexpected keyword argument 'depth'",
        id="arguments",
    ),
    pytest.param(
        {"name": "mnist", "arguments": {"width": 0}},
        MNIST,
        "width=0: expected a number from 0.04 to 100",
        id="width",
    ),
    pytest.param(
        {"name": "torchvision:resnet18", "arguments": {"width": 3}},
        CIFAR,
        "unexpected keyword argument 'width'",
        id="torchvision_arguments",
    ),
    pytest.param(
        {"name": "digits", "mean": [0.1, 0.2], "std": [1.0]},
        DIGITS,
        "model.mean has 2 entries, but the images have 1 channel(s)",
        id="mean",
    ),
    pytest.param(
        {"name": "preact_resnet18", "mean": [0.1], "std": [1.0, 1.0]},
        CIFAR,
        "model.std has 2 entries, but the images have 3 channel(s)",
        id="std",
    ),
    pytest.param(
        {"name": "builtins:dict"},
        DIGITS,
        "returned dict, expected a torch.nn.Module",
        id="no_module",
    ),
    pytest.param(
        {"name": "no_such_package:make"}, DIGITS, "cannot import 'no_such_package'", id="import"
    ),
]


@pytest.mark.parametrize(("fields", "image_shape", "expected"), REFUSED_BUILDS)
def test_model_that_cannot_be_built_is_refused(
    fields: dict[str, Any], image_shape: tuple[int, int, int], expected: str
) -> None:
    assert expected in refusal(lambda: build(**fields, image_shape=image_shape))


def test_error_in_a_users_function_says_where(user_module: Callable[[str], str]) -> None:
    name = user_module("def make(num_classes, image_shape):\n    raise KeyError('width')\n")
    line = refusal(lambda: build(f"{name}:make", DIGITS))
    assert "KeyError: 'width'" in line
    assert f"(at {name}.py:4)" in line


class _Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


REFUSED_MODELS = [
    pytest.param(nn.Sequential(nn.Conv2d(3, 4, 3)), "to have 3 channels", id="channels"),
    pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), "2x64 and 9x10", id="size"),
    pytest.param(_Pair(), "model _Pair, given 2 images of 1x8x8, returns tuple", id="pair"),
    pytest.param(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
        "[2, 7], expected logits [2, 10]",
        id="classes",
    ),
    pytest.param(nn.Conv2d(1, 10, 8), "shape [2, 10, 1, 1]", id="not_flat"),
]


@pytest.mark.parametrize(("model", "expected"), REFUSED_MODELS)
def test_model_that_does_not_fit_the_data_is_refused(model: nn.Module, expected: str) -> None:
    assert expected in refusal(lambda: check_model(model, DIGITS, 10))


def test_check_changes_neither_state_nor_modes() -> None:
    model = build("preact_resnet18", CIFAR).train()
    model.get_submodule("last_norm").eval()
    before, modes = fingerprint(model), [layer.training for layer in model.modules()]
    check_model(model, CIFAR, 10)
    assert fingerprint(model) == before
    assert [layer.training for layer in model.modules()] == modes


@pytest.fixture
def user_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of a user's and returns its name."""

    def write(text: str) -> str:
        name = f"users_model_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{text}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def expanded(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    model.register_parameter("scale", nn.Parameter(torch.ones(1).expand(8)))
    return model


def sparse(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    model.register_buffer("graph", torch.eye(3).to_sparse())
    return model


def unreached(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
    model[0].beside = nn.LazyLinear(3)
    return model


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("expanded", "elements of scale share memory, as `expand`"),
        ("sparse", r"graph is torch\.sparse_coo, expected a dense"),
        ("unreached", r"0\.beside\.weight is never initialised"),
    ],
)
def test_tensor_that_cannot_be_written_to_is_refused(name: str, told: str) -> None:
    config = ModelConfig(name=f"test_models:{name}")
    with pytest.raises(UserError, match=told):
        build_model(config, num_classes=10, image_shape=(1, 8, 8), seed=0)
