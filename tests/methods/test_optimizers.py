"""Optimisers against their update rules, learning rates against their curves."""

import math
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mpiadv.methods.optimizers import make_optimizer, make_schedule
from mpiadv.process.errors import UserError
from mpiadv.settings import OptimizerConfig, ScheduleConfig
from mpiadv.storage.checkpoint import load_checkpoint, save_checkpoint

SCHEDULES = [
    pytest.param({"name": "constant"}, id="constant"),
    pytest.param({"name": "multistep", "milestones": [2, 7]}, id="multistep"),
    pytest.param({"name": "cosine"}, id="cosine"),
    pytest.param({"name": "one_cycle"}, id="one_cycle"),
]
WARMED = [
    pytest.param({"name": "constant", "warmup_steps": 3}, id="warmed constant"),
    pytest.param({"name": "cosine", "warmup_steps": 7}, id="warmed cosine"),
    pytest.param(
        {"name": "multistep", "milestones": [4, 8], "warmup_steps": 2}, id="warmed multistep"
    ),
]
OPTIMIZERS = [
    pytest.param({"name": "sgd", "weight_decay": 5e-4}, id="sgd"),
    pytest.param({"name": "sgd", "nesterov": True}, id="sgd-nesterov"),
    pytest.param({"name": "adam", "betas": (0.8, 0.99)}, id="adam"),
    pytest.param({"name": "adamw", "weight_decay": 0.01}, id="adamw"),
    pytest.param(
        {"name": "sgd", "weight_decay": 0.01, "decay_norms_and_biases": False}, id="spared"
    ),
]


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator)), nn.Parameter(torch.ones(3))]


def _step(parameters: Iterable[nn.Parameter], optimizer: Optimizer, number: int) -> None:
    for parameter in parameters:
        parameter.grad = torch.sin(parameter.detach() * (number + 1))
    optimizer.step()


def _rates(schedule: dict[str, Any], num_steps: int, rate: float = 0.1) -> list[float]:
    """The learning rate of each training step."""
    parameters = _parameters()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=rate), parameters)
    scheduler = make_schedule(ScheduleConfig(**schedule), optimizer, num_steps=num_steps)
    rates = []
    for number in range(num_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        _step(parameters, optimizer, number)
        scheduler.step()
    return rates


@pytest.mark.parametrize("config", OPTIMIZERS)
def test_optimiser_does_without_torchs_compiler(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # whoever imports it fails
    parameters = _parameters()
    optimizer = make_optimizer(OptimizerConfig(**config), parameters)
    _step(parameters, optimizer, 0)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert parameters[0].grad is None


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        pytest.param({"name": "sgd"}, lambda p, g: p - 0.1 * g, id="sgd"),
        pytest.param(
            {"name": "sgd", "weight_decay": 0.5}, lambda p, g: p - 0.1 * (g + 0.5 * p), id="decay"
        ),
        pytest.param(
            {"name": "sgd", "nesterov": True}, lambda p, g: p - 0.1 * 1.9 * g, id="nesterov"
        ),
        pytest.param({"name": "adam"}, lambda p, g: p - 0.1 * g.sign(), id="adam"),
        pytest.param(
            {"name": "adamw", "weight_decay": 0.5},
            lambda p, g: p * 0.95 - 0.1 * g.sign(),
            id="adamw",
        ),
    ],
)
def test_first_step_is_the_update_of_the_named_rule(changes: dict[str, Any], factor: Any) -> None:
    parameters = _parameters()
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, **changes), iter(parameters))
    _step(parameters, optimizer, 0)
    for start, end in zip(before, parameters, strict=True):
        assert torch.allclose(end, factor(start, torch.sin(start)), atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_spared_weight_decay_where_that_is_asked_for(name: str) -> None:
    changes = {"name": name, "learning_rate": 0.1, "weight_decay": 0.5}
    ends = []
    for decay, spared in ((0.0, True), (0.5, True), (0.5, False), (0.5, True)):
        parameters = _parameters()
        config = OptimizerConfig(
            **{**changes, "weight_decay": decay, "decay_norms_and_biases": spared}
        )
        _step(parameters, make_optimizer(config, parameters), 0)
        ends.append(parameters)
    (bare_weight, bare_bias), (weight, bias), (other_weight, other_bias), _ = ends
    assert torch.equal(weight, other_weight) and not torch.equal(weight, bare_weight)
    assert torch.equal(other_bias, bare_bias) and not torch.equal(bias, bare_bias)


def test_parameters_that_are_all_spared_make_one_group() -> None:
    config = OptimizerConfig(weight_decay=0.5, decay_norms_and_biases=False)
    optimizer = make_optimizer(config, [nn.Parameter(torch.ones(3))])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"name": "sgd", "nesterov": True, "momentum": 0.0}, "omentum", id="nesterov"),
        pytest.param({"name": "adam", "betas": (1.0, 0.9)}, "beta", id="beta"),
    ],
)
def test_settings_that_torch_refuses_are_the_users_error(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=f"optimizer {changes['name']}: .*{said}"):
        make_optimizer(OptimizerConfig(**changes), _parameters())


def test_constant_rate_stays() -> None:
    assert _rates({"name": "constant"}, 5) == [0.1] * 5


def test_multistep_rate_drops_after_its_milestones() -> None:
    rates = _rates({"name": "multistep", "milestones": [2, 4], "gamma": 0.5}, 6)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_cosine_rate_follows_the_cosine_to_zero() -> None:
    expected = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert _rates({"name": "cosine"}, 8) == pytest.approx(expected)


@pytest.mark.parametrize("rising_fraction", [0.1, 0.3, 0.5, 0.9])
def test_one_cycle_rises_to_the_rate_and_falls_to_almost_zero(rising_fraction: float) -> None:
    rates = _rates({"name": "one_cycle", "rising_fraction": rising_fraction}, 100)
    peak = round(100 * rising_fraction) - 1
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[peak] == pytest.approx(0.1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-6


def test_one_cycle_leaves_the_moments_of_adam_alone() -> None:
    optimizer = make_optimizer(OptimizerConfig(betas=(0.8, 0.99)), _parameters())
    scheduler = make_schedule(ScheduleConfig(name="one_cycle"), optimizer, num_steps=10)
    optimizer.step()
    scheduler.step()
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.8, 0.99)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 10])
def test_shortest_runs_have_usable_rates(schedule: dict[str, Any], num_steps: int) -> None:
    rates = _rates(schedule, num_steps)
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in rates)
    assert rates[0] > 0


@pytest.mark.parametrize("rising_fraction", [1e-9, 0.1, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10])
def test_one_cycle_stands_any_rising_fraction(rising_fraction: float, num_steps: int) -> None:
    rates = _rates({"name": "one_cycle", "rising_fraction": rising_fraction}, num_steps)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)


@pytest.mark.parametrize(
    ("schedule", "later"),
    [
        ({"name": "constant"}, [1.0] * 6),
        ({"name": "multistep", "milestones": [6, 8]}, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
    ],
    ids=lambda value: value.get("name", "") if isinstance(value, dict) else "",
)
def test_rate_rises_by_equal_steps_and_then_goes_as_without_a_warm_up(
    schedule: dict[str, Any], later: list[float]
) -> None:
    rates = _rates({**schedule, "warmup_steps": 4}, 10)
    assert rates == pytest.approx([0.1 * share for share in (0.2, 0.4, 0.6, 0.8, *later)])


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"name": "constant", "warmup_steps": 10}, r"none of the 10 .* schedule.warmup_steps<10"),
        (
            {"name": "multistep", "milestones": [3, 6], "warmup_steps": 3},
            r"milestones=\[3, 6\] begin within the warm-up: use schedule.warmup_steps<3",
        ),
    ],
)
def test_warm_up_that_leaves_no_room_is_refused(schedule: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        _rates(schedule, 10)


def test_multistep_without_milestones_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs schedule\.milestones"):
        _rates({"name": "multistep"}, 3)


def _saved_and_loaded(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint gives it back."""
    return load_checkpoint(save_checkpoint(folder, 5, state, keep=1)).payload


def _build(
    optimizer: dict[str, Any], schedule: dict[str, Any]
) -> tuple[list[nn.Parameter], Optimizer, LRScheduler]:
    parameters = _parameters()
    made = make_optimizer(OptimizerConfig(learning_rate=0.1, **optimizer), parameters)
    return parameters, made, make_schedule(ScheduleConfig(**schedule), made, num_steps=12)


def _advance(
    parameters: list[nn.Parameter], optimizer: Optimizer, scheduler: LRScheduler, steps: range
) -> list[Tensor]:
    seen = []
    for number in steps:
        _step(parameters, optimizer, number)
        scheduler.step()
        seen += [parameter.detach().clone() for parameter in parameters]
    return seen


@pytest.mark.parametrize("schedule", [*SCHEDULES, *WARMED])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_loaded_state_takes_the_same_steps_bitwise(
    tmp_path: Path, optimizer: dict[str, Any], schedule: dict[str, Any]
) -> None:
    parameters, first, scheduler = _build(optimizer, schedule)
    _advance(parameters, first, scheduler, range(5))
    saved = _saved_and_loaded(
        tmp_path,
        {"optimizer": first.state_dict(), "schedule": scheduler.state_dict(), "model": parameters},
    )
    expected = _advance(parameters, first, scheduler, range(5, 12))

    parameters, second, scheduler = _build(optimizer, schedule)
    second.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["schedule"])
    for parameter, values in zip(parameters, saved["model"], strict=True):
        parameter.data.copy_(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = _advance(parameters, second, scheduler, range(5, 12))
    assert all(torch.equal(a, b) for a, b in zip(expected, resumed, strict=True))
    assert len(resumed) == 14
