"""The moving average of the weights, against a few lines of numpy."""

import copy

import numpy as np
import pytest
import torch
from ordinary_steps import ordinary_step
from torch import nn

from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.averages import make_average
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import OrdinaryStep
from mpiadv.models import fingerprint
from mpiadv.process.errors import UserError
from mpiadv.settings import AverageConfig
from mpiadv.storage.run_folder import EMA, RAW

NUM_STEPS = 40


class WithUnsavedBuffer(nn.Module):
    """Batch norm, and a buffer that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.register_buffer("largest", torch.zeros(()), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.largest += images.max()
        return self.layers(images)


def new_step(decay: float | None, warmup_fraction: float = 0.25) -> OrdinaryStep:
    model = WithUnsavedBuffer()
    config = AverageConfig(decay=decay, warmup_fraction=warmup_fraction)
    average = make_average(config, model, num_steps=NUM_STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return ordinary_step(model, optimizer, average=average)


def train(step: OrdinaryStep, first: int = 0, stop: int = NUM_STEPS) -> None:
    for ticket in range(first, stop):
        images = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(ticket))
        batch = Batch(images=images, labels=torch.arange(8) % 2)
        step.gradient(ticket, batch, AttackSettings(num_steps=0, epsilon=0.0))
        step.apply()


def weights_of(model: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().double().numpy().copy() for parameter in model.parameters()]


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.13, 0.25])
@pytest.mark.parametrize("decay", [0.5, 0.995])
def test_average_equals_the_papers_over_the_weights_of_every_step(
    decay: float, warmup_fraction: float
) -> None:
    step = new_step(decay, warmup_fraction)
    expected = weights_of(step.model)
    for number in range(1, NUM_STEPS + 1):
        train(step, number - 1, number)
        since = number - warmup_fraction * NUM_STEPS
        kept = min(decay, (1 + since) / (10 + since)) * (since >= 0)
        expected = [
            kept * mean + (1 - kept) * now
            for mean, now in zip(expected, weights_of(step.model), strict=True)
        ]
        for mean, ours in zip(expected, weights_of(step.models[EMA]), strict=True):
            np.testing.assert_allclose(ours, mean, rtol=1e-5, atol=1e-7)


def test_average_has_the_newest_buffers_and_leaves_the_training_as_it_is() -> None:
    averaged, plain = new_step(0.9), new_step(None)
    train(averaged)
    train(plain)
    assert [*plain.models] == [RAW]
    assert fingerprint(averaged.models[RAW]) == fingerprint(plain.model)
    assert fingerprint(averaged.models[EMA]) != fingerprint(plain.model)
    pairs = zip(averaged.models[EMA].buffers(), plain.model.buffers(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert averaged.models[EMA].largest > 0


def test_average_that_is_gone_on_with_ends_in_the_same_bits() -> None:
    calm, first, second = (new_step(0.9) for _ in range(3))
    train(calm)
    train(first, 0, 15)
    state = copy.deepcopy(first.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    second.model.largest.copy_(first.model.largest)
    second.load_state_dict(state)
    assert fingerprint(second.models[EMA]) == fingerprint(first.models[EMA])
    train(second, 15)
    for name in (RAW, EMA):
        assert fingerprint(second.models[name]) == fingerprint(calm.models[name])


def test_state_of_the_average_of_another_model_is_refused() -> None:
    step = new_step(0.9)
    state = step.state_dict()
    state["average"]["module.layers.2.bias"] = torch.zeros(3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        step.load_state_dict(state)


def test_model_that_cannot_be_copied_is_one_line() -> None:
    model = nn.Linear(2, 2)
    model.doubled = model.weight * 2
    with pytest.raises(UserError, match=r"^average\.decay needs a copy of the model, .*: Runtime"):
        make_average(AverageConfig(decay=0.9), model, num_steps=10)


class OnlyOne(nn.Linear):
    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        return self


class Another(nn.Linear):
    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (OnlyOne(2, 2), "its copy has the same parameters, not copies of them"),
        (Another(2, 2), "its copy has other parameters or buffers"),
    ],
    ids=["itself", "another"],
)
def test_copy_that_is_none_is_one_line(model: nn.Module, why: str) -> None:
    with pytest.raises(UserError, match=why):
        make_average(AverageConfig(decay=0.9), model, num_steps=10)
    assert all(parameter.requires_grad for parameter in model.parameters())
