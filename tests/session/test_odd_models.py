"""What bits or figures would suffer from in a user's model is told before training."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rehearsed_nets import Net, forward_of, noise_of, plain, rehearsed
from torch import Tensor, nn


def counted(net: Any, images: Tensor) -> Tensor:
    net.calls += net.training
    return plain(net, images) * (1 + min(net.calls, 100) / 100)


def counted_from(number: int) -> Callable[[Any, Tensor], Tensor]:
    def forward(net: Any, images: Tensor) -> Tensor:
        net.calls += net.training
        return plain(net, images) * (1 if net.calls < number else 2)

    return forward


class Remembering(Net):
    """Keeps something of each training batch where only `state` may know it."""

    def __init__(self, state: Any, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.state, self.change = state, change

    def forward(self, images: Tensor) -> Any:
        if self.training:
            self.state = self.change(self.state)
        return super().forward(images)


def remembering(state: Any, change: Callable[[Any], Any]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(Remembering(state, change))


class Running(Net):
    """Subtracts a running mean that is no buffer: a closure holds it."""

    def __init__(self) -> None:
        super().__init__()
        mean = torch.zeros(1)

        def centred(images: Tensor) -> Tensor:
            nonlocal mean
            mean = mean.lerp(images.mean().detach(), 0.1) if self.training else mean
            return images - mean

        self.centred = centred

    def forward(self, images: Tensor) -> Any:
        return super().forward(self.centred(images))


class CountsAlways(Net):
    """A buffer that changes in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Any:
        self.get_buffer("calls").add_(1)
        return super().forward(images)


class OwnGenerator(Net):
    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Any:
        return super().forward(images + torch.randn(images.shape, generator=self.source))


def badly_seeded() -> nn.Module:
    net = Net()
    net.first.weight.data.add_(float(np.random.default_rng().random()))
    return net


def seeded_by_numpy() -> nn.Module:
    net = Net()
    net.first.weight.data.add_(float(np.random.random()) + random.random())
    return net


COUNTER = "changes in training and is no buffer"
RANDOM = "is random: it gives the same images other logits"

WARNED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "counter": (forward_of(counted, calls=0), [f"'calls' {COUNTER}"]),
    "counter_for_later": (forward_of(counted_from(1000), calls=0), [f"'calls' {COUNTER}"]),
    "in_a_list": (remembering([0], lambda state: [state[0] + 1]), [f"'0.state' {COUNTER}"]),
    "in_an_array": (remembering(np.zeros(2), lambda state: state + 1), [f"'0.state' {COUNTER}"]),
    "in_a_tensor": (remembering(torch.zeros(2), lambda s: s + 1), [f"'0.state' {COUNTER}"]),
    "in_a_mapping": (
        remembering({"a": {"b": 1.0}}, lambda s: {"a": {"b": s["a"]["b"] / 2}}),
        [f"'0.state' {COUNTER}"],
    ),
    "where_nobody_can_look": (Running, ["a copy with the same parameters and buffers gives other"]),
    "buffer_in_evaluation": (CountsAlways, ["its buffer 'calls' changes in evaluation mode too"]),
    "torch_noise": (noise_of(lambda: torch.randn(())), [RANDOM]),
    "numpy_noise": (noise_of(np.random.normal), [RANDOM]),
    "python_noise": (noise_of(random.random), [RANDOM]),
    "noise_of_its_own": (
        noise_of(lambda: np.random.default_rng().random()),
        ["Nor does the seed decide it: it counts its passes"],
    ),
    "generator_of_its_own": (OwnGenerator, ["or draws from a generator of its own"]),
    "probabilities": (
        forward_of(lambda net, x: plain(net, x).softmax(1)), ["leave the softmax at its end out"]
    ),
    "flat": (forward_of(lambda net, x: plain(net, x.round())), ["a gradient of zeros"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNED)
def test_model_that_bits_or_figures_would_suffer_from_is_warned_of(name: str) -> None:
    build, parts = WARNED[name]
    notes = rehearsed(build)
    assert len(notes) == len(parts), notes
    for note, part in zip(notes, parts, strict=True):
        assert part in note and "\n" not in note


def test_model_that_begins_differently_with_the_same_seed_is_warned_of(tmp_path: Any) -> None:
    for builder, parts in ((badly_seeded, 1), (seeded_by_numpy, 0)):

        def build(builder: Callable[[], nn.Module] = builder) -> nn.Module:
            np.random.seed(0)
            random.seed(0)
            return builder()

        notes = rehearsed(build)
        assert len(notes) == parts, notes
        assert all("begins with another 'first.weight' in every call" in note for note in notes)
