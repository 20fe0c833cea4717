"""What is wrong with a user's model is told before training, and what is right is let through."""

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rehearsed_nets import (
    SHAPE,
    Net,
    WithExtraState,
    forward_of,
    noise_of,
    plain,
    rehearsed,
    sequential,
)
from torch import Tensor, nn

from mpiadv.models import build_model, fingerprint
from mpiadv.process.errors import UserError
from mpiadv.session.rehearsal import Sample, rehearse_evaluation
from mpiadv.settings import ModelConfig, Precision


def flat_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))


def in_eval_mode_only(net: Net, images: Tensor) -> Tensor:
    assert not net.training, "no training here"
    return plain(net, images)


@torch.no_grad()
def without_gradients(net: Net, images: Tensor) -> Tensor:
    return plain(net, images)


def overwritten(net: Net, images: Tensor) -> Tensor:
    images.data.mul_(2)
    return plain(net, images)


def square_root_at_zero(net: Net, images: Tensor) -> Tensor:
    return plain(net, images) + (0 * images).sqrt().sum()


_ONE = Net()
_SHARED = nn.Linear(64, 16)


def with_shared_layer() -> nn.Module:
    net = Net()
    net.first = _SHARED
    return net


def of_other_size_each_time(widths: Any = itertools.count(8)) -> nn.Module:  # noqa: B008
    width = next(widths)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))


class Cut(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach()


GRADIENT = "lets no gradient through{}(by detach, *, so that attacks have nothing to climb"

REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "in_place": (
        forward_of(lambda net, x: plain(net, x.sub_(0.5))), {}, "writes into them: leave out "
    ),
    "in_place_behind_its_back": (forward_of(overwritten), {}, "writes into them: leave out"),
    "relu_first": (
        sequential(lambda: nn.ReLU(inplace=True), nn.Flatten, lambda: nn.Linear(64, 10)), {},
        "writes into them in layer '0' (ReLU): leave out inplace=True, or work on a copy, *",
    ),
    "auxiliary": (
        forward_of(lambda net, x: (plain(net, x),) * 2 if net.training else plain(net, x)), {},
        "given 16 images of 1x8x8 in training mode, returns tuple, expected one tensor of logits "
        "[16, 10]: return them alone",
    ),
    "dictionary": (forward_of(lambda net, x: {"logits": plain(net, x)}), {}, "returns dict"),
    "nothing": (forward_of(lambda net, x: None), {}, "returns NoneType"),
    "one_image_squeezed": (
        forward_of(lambda net, x: plain(net, x).squeeze()), {},
        "given 1 image of 1x8x8, returns a tensor of shape [10], expected logits [1, 10]",
    ),
    "size_of_batch_built_in": (
        forward_of(lambda net, x: plain(net, x.view(16, -1))), {}, "given 2 images *RuntimeError",
    ),
    "blocked": (
        forward_of(lambda net, x: plain(net, (x > 0.5).float())), {}, GRADIENT.format(" ")
    ),
    "detached": (forward_of(lambda net, x: plain(net, x.detach())), {}, GRADIENT.format(" ")),
    "detached_in_a_layer": (
        sequential(nn.Flatten, Cut, lambda: nn.Linear(64, 10)), {},
        GRADIENT.format(" in layer '1' (Cut) "),
    ),
    "no_grad": (forward_of(without_gradients), {}, GRADIENT.format("*")),
    "through_numpy": (
        forward_of(lambda net, x: plain(net, torch.from_numpy(x.numpy()))), {},
        "RuntimeError: Can't call numpy() on Tensor that requires grad",
    ),
    "gradient_not_finite": (
        forward_of(square_root_at_zero), {}, "gives its images a gradient that is not finite"
    ),
    "not_a_number": (
        forward_of(lambda net, x: plain(net, x) * float("nan")), {}, "logits that are not finite"
    ),
    "extra_state": (
        WithExtraState, {}, "'_extra_state' of its state dict is dict, expected tensors: keep what",
    ),
    "frozen": (
        lambda: Net().requires_grad_(False), {},
        "none of its 4 parameters has requires_grad, so there is nothing to train",
    ),
    "cached": (lambda: _ONE, {}, "two calls of its function are one model"),
    "layer_shared": (with_shared_layer, {}, "two calls of its function share 'first.weight'"),
    "other_sizes": (of_other_size_each_time, {}, "give models of other parameters"),
    "batch_norm_of_one_image": (
        flat_batch_norm, {"batch_size": 1, "num_attacked": 1},
        "given 1 image of 1x8x8 in training mode, fails in layer '2' (BatchNorm1d): ValueError: "
        "Expected more than 1 value per channel",
    ),
    "batch_norm_of_one_attacked_image": (
        flat_batch_norm, {"num_attacked": 1, "trains_under_attack": True}, "given 1 image *fails in"
    ),
    "no_training": (
        forward_of(in_eval_mode_only), {},
        "in training mode, fails: AssertionError: no training here (at test_rehearsal.py:",
    ),
    "leaves": (forward_of(lambda net, x: exit(3)), {}, "ends the program with SystemExit: 3 (at "),
    "leaves_in_training": (
        forward_of(lambda net, x: exit(3) if net.training else plain(net, x)), {},
        "in training mode, fails: it ends the program with SystemExit: 3 (at ",
    ),
    "parameters_unused": (
        forward_of(lambda net, x: x.flatten(1)[:, :10] * 2), {}, "lets no gradient through *, so "
        "that nothing is trained",
    ),
}  # fmt: skip
"""A model, changes of how it is trained, and a part of the line, any text in place of a star."""


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_training_would_break_on_is_refused_in_a_line(name: str) -> None:
    build, changes, part = REFUSED[name]
    with pytest.raises(UserError) as refusal:
        rehearsed(build, **changes)
    line = str(refusal.value)
    assert re.search(re.escape(part).replace(r"\*", ".*"), line), line
    assert line.startswith("model ") and "\n" not in line


def no_return(net: Any, mode: bool = True) -> None:
    nn.Module.train(net, mode)


def ghost_batch_norm(net: Net, images: Tensor) -> Tensor:
    if net.training:
        return torch.cat([plain(net, part) for part in images.view(4, 4, *SHAPE)])
    return plain(net, images)


def zero_head() -> nn.Module:
    net = Net()
    nn.init.zeros_(net.second.weight)
    nn.init.zeros_(net.second.bias)
    return net


def tied() -> nn.Module:
    layer = nn.Linear(64, 64)
    tail = nn.Linear(64, 10)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.ReLU(), tail)


def hooked() -> nn.Module:
    net = Net()
    net.first.register_forward_hook(lambda layer, given, output: output * 2)
    return net


def partly_frozen() -> nn.Module:
    net = Net()
    net.first.requires_grad_(False)
    return net


def traced() -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    module: nn.Module = torch.jit.trace(layers, torch.zeros(3, *SHAPE))
    return module


_CONSTANT = torch.full((64,), 0.5)


class WithConstant(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("middle", _CONSTANT, persistent=False)

    def forward(self, images: Tensor) -> Any:
        return super().forward(images.flatten(1) - self.get_buffer("middle"))


class Stores(Net):
    """Keeps what it computed last, as many do to look at it."""

    def forward(self, images: Tensor) -> Any:
        self.features = images.flatten(1).relu()
        self.shape = list(images.shape)
        return super().forward(images)


TAKEN: dict[str, Callable[[], nn.Module]] = {
    "train_returns_nothing": forward_of(plain, train=no_return),
    "splits_its_batches_in_training": forward_of(ghost_batch_norm),
    "last_layer_begins_with_zeros": zero_head,
    "tied_weights": tied,
    "hooks": hooked,
    "partly_frozen": partly_frozen,
    "keeps_features": Stores,
    "dropout_and_batch_norm": sequential(
        nn.Flatten, nn.Dropout, lambda: nn.Linear(64, 8), lambda: nn.BatchNorm1d(8),
        lambda: nn.Linear(8, 10),
    ),
    "channels_last": sequential(
        lambda: nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last), nn.Flatten,
        lambda: nn.Linear(144, 10),
    ),
    "traced": traced,
    "constant_kept_once": WithConstant,
    "one_parameter_without_use": forward_of(lambda net, x: net.first(x.flatten(1))[:, :10]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TAKEN)
def test_unusual_model_is_taken_without_a_word(name: str, precision: Precision) -> None:
    for trains_under_attack in (False, True):
        changes = {"precision": precision, "trains_under_attack": trains_under_attack}
        assert rehearsed(TAKEN[name], **changes) == []


def test_rehearsal_leaves_global_random_numbers_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    rehearsed(noise_of(lambda: torch.randn(()) + np.random.normal() + random.random()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]


def test_trained_model_is_left_as_it_was_by_its_trial() -> None:
    model = TAKEN["dropout_and_batch_norm"]()
    before, modes = fingerprint(model), [layer.training for layer in model.modules()]
    given = Sample(
        images=torch.rand(2, *SHAPE), labels=torch.tensor([0, 1]), num_classes=10,
        precision="float32",
    )  # fmt: skip
    assert rehearse_evaluation(model, given, needs_gradient=True) == []
    assert fingerprint(model) == before
    assert [layer.training for layer in model.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    detached = REFUSED["detached"][0]()
    assert rehearse_evaluation(detached, given, needs_gradient=False) == []
    with pytest.raises(UserError, match="lets no gradient through"):
        rehearse_evaluation(detached, given, needs_gradient=True)


LAZY = """
from torch import nn
def model(*, num_classes, image_shape):
    return nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes)
    )
"""


def test_lazy_layers_get_their_sizes_from_the_images(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lazily.py").write_text(LAZY)

    def build() -> nn.Module:
        config = ModelConfig(name="lazily:model", mean=[0.5], std=[0.5])
        return build_model(config, num_classes=10, image_shape=SHAPE, seed=3)

    assert fingerprint(build()) == fingerprint(build())
    assert rehearsed(build) == []
    assert sum(parameter.numel() for parameter in build().parameters()) == 40 + 8 + 1450


def test_model_without_values_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "on_meta.py").write_text(
        "import torch\nfrom torch import nn\ndef model(**_):\n"
        "    with torch.device('meta'): return nn.Linear(2, 2)\n"
    )
    with pytest.raises(UserError, match="cannot be brought to the CPU in float32: NotImpl"):
        build_model(ModelConfig(name="on_meta:model"), num_classes=2, image_shape=SHAPE, seed=0)
