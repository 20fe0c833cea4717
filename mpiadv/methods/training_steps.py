"""What the trainer may do with its batches, by name. Knows no message and no communicator."""

from collections.abc import Callable, Mapping

from mpiadv.methods.perturbed import PerturbedStep
from mpiadv.methods.replays import KeptReplays, RestartedReplays
from mpiadv.methods.training_step import OrdinaryStep, Parts, TrainingStep
from mpiadv.methods.yopo import CheapStep
from mpiadv.process.errors import UserError
from mpiadv.settings import TrainingConfig
from mpiadv.settings.registry import find_registered

TRAINING_STEPS: Mapping[str, Callable[[Parts], TrainingStep]] = {
    "ordinary": OrdinaryStep,
    "awp": PerturbedStep,
    "free": KeptReplays,
    "deat": RestartedReplays,
    "yopo": CheapStep,
}

_ATTACKING = ("free", "deat", "yopo")


def make_training_step(parts: Parts) -> TrainingStep:
    """The training step that the configuration names.

    Raises:
        UserError: none has that name.
    """
    return _find(parts.config)(parts)


def require_attacked(config: TrainingConfig, *, crafted: int, num_steps: int) -> None:
    """Refuse crafted attack steps where the training step runs them all.

    Raises:
        UserError: so many of the attack's are crafted, or no training step has that name.
    """
    _find(config)
    if config.step in _ATTACKING and crafted:
        raise UserError(
            f"training.step={config.step} runs the attack's {num_steps} steps itself, while it "
            f"trains: use staleness.trainer_steps={num_steps}, so that none of them is crafted"
        )


def _find(config: TrainingConfig) -> Callable[[Parts], TrainingStep]:
    return find_registered("training step", config.step, TRAINING_STEPS)
