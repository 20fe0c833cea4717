"""Optimisers and learning rates, by torch's own implementations. Knows only its two sections."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from mpiadv.process.errors import UserError
from mpiadv.settings import OptimizerConfig, ScheduleConfig
from mpiadv.settings.registry import find_registered


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser that `config` names, for parameters that are already on their device.

    Raises:
        UserError: torch refuses the settings; the line gives its reason.
    """
    parameters = list(parameters)
    # One kernel for all parameters: Adam is nine times as fast on a CPU core as one by one.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    kind, names = find_registered("optimizer", config.name, OPTIMIZERS)
    settings = {name: getattr(config, name) for name in (*names, "weight_decay")}
    groups = _groups(config, parameters)
    try:
        return _light(kind)(groups, lr=config.learning_rate, fused=fused, **settings)
    except ValueError as error:
        raise UserError(f"optimizer {config.name}: {error}") from None


def _groups(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """All parameters, those without weight decay by themselves."""
    if config.decay_norms_and_biases:
        return [{"params": parameters}]
    weights = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_schedule(config: ScheduleConfig, optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
    """The learning rate over `num_steps` training steps; call `step()` after each of them.

    It starts from, or for `one_cycle` peaks at, the learning rate of `optimizer`; after a warm-up,
    in which that is approached by equal steps (Goyal et al. 2017, "Accurate, Large Minibatch SGD",
    section 2.2).

    Raises:
        UserError: the settings make no schedule.
    """
    make = find_registered("schedule", config.name, SCHEDULES)
    warm_up = config.warmup_steps
    if not warm_up or config.name == "one_cycle":
        return make(config, optimizer, num_steps)
    if warm_up >= num_steps:
        raise UserError(
            f"schedule.warmup_steps={warm_up} leaves none of the {num_steps} training steps at the "
            f"full rate: use schedule.warmup_steps<{num_steps}"
        )
    rising = LinearLR(optimizer, start_factor=1 / (warm_up + 1), total_iters=warm_up)
    milestones = [milestone - warm_up for milestone in config.milestones]
    if min(milestones, default=1) < 1:
        raise UserError(
            f"schedule.milestones={config.milestones} begin within the warm-up: use "
            f"schedule.warmup_steps<{config.milestones[0]}"
        )
    later = config.model_copy(update={"milestones": milestones})
    following = make(later, optimizer, num_steps - warm_up)
    return SequentialLR(optimizer, [rising, following], milestones=[warm_up])


def _light(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """`kind` without torch's compiler.

    Methods that cannot be compiled import it when they are first called, to tell it so: that takes
    longer than to import all else of torch.
    """
    bare = {name: unwrap(getattr(kind, name)) for name in _NOT_COMPILED}
    return type(kind.__name__, (kind,), {**bare, "step": torch.no_grad()(unwrap(kind.step))})


_NOT_COMPILED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")

OPTIMIZERS: Mapping[str, tuple[type[Optimizer], Sequence[str]]] = {
    "sgd": (SGD, ("momentum", "nesterov")),
    "adam": (Adam, ("betas",)),
    "adamw": (AdamW, ("betas",)),
}
"""Each with the settings that are its own."""


def _multistep(config: ScheduleConfig, optimizer: Optimizer, num_steps: int) -> LRScheduler:
    if not config.milestones:
        raise UserError(
            "schedule.name=multistep needs schedule.milestones, the training steps after which "
            "the rate drops, such as [500, 750]"
        )
    return MultiStepLR(optimizer, config.milestones, gamma=config.gamma)


def _one_cycle(config: ScheduleConfig, optimizer: Optimizer, num_steps: int) -> LRScheduler:
    # torch divides by the length of the rise: it gets at least one step, so the shortest cycle has
    # three rates (low, peak, low), of which a shorter run uses the first ones.
    total = max(3, num_steps)
    rising = max(config.rising_fraction, 2 / total)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=rising,
        cycle_momentum=False,  # for Adam it would cycle beta1
    )


SCHEDULES: Mapping[str, Callable[[ScheduleConfig, Optimizer, int], LRScheduler]] = {
    "constant": lambda config, optimizer, num_steps: ConstantLR(optimizer, factor=1.0),
    "multistep": _multistep,
    "cosine": lambda config, optimizer, num_steps: CosineAnnealingLR(optimizer, T_max=num_steps),
    "one_cycle": _one_cycle,
}
