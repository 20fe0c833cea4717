"""Training steps of few words, for tests of single parts of the engine."""

from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR

from mpiadv.methods.objectives import make_objective
from mpiadv.methods.training_step import OrdinaryStep, Parts
from mpiadv.settings import AttackConfig, ObjectiveConfig, TrainingConfig


def ordinary_step(
    model: nn.Module, optimizer: Optimizer | None = None, **changes: Any
) -> OrdinaryStep:
    """The ordinary one of `step_parts`."""
    return OrdinaryStep(step_parts(model, optimizer, **changes))


def step_parts(model: nn.Module, optimizer: Optimizer | None = None, **changes: Any) -> Parts:
    """Plain SGD at a constant rate of 1, unless said otherwise; `changes` are of the parts."""
    optimizer = optimizer or SGD(model.parameters(), lr=1.0)
    parts = {
        "config": TrainingConfig(),
        "attack": AttackConfig(),
        "model": model,
        "objective": make_objective(ObjectiveConfig()),
        "optimizer": optimizer,
        "schedule": ConstantLR(optimizer, factor=1.0),
        "seed": 0,
        "num_clean": 0,
    }
    return Parts(**{**parts, **changes})
