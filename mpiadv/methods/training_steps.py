"""What the trainer may do with its batches, by name. Knows no message and no communicator."""

from collections.abc import Mapping

from mpiadv.attacks import Attack
from mpiadv.attacks.attack import anywhere
from mpiadv.methods.perturbed import PerturbedStep
from mpiadv.methods.replays import KeptReplays, RestartedReplays
from mpiadv.methods.training_step import OrdinaryStep, Parts, TrainingStep
from mpiadv.methods.yopo import CheapStep
from mpiadv.process.errors import UserError
from mpiadv.settings import TrainingConfig
from mpiadv.settings.registry import find_registered

TRAINING_STEPS: Mapping[str, type[OrdinaryStep]] = {
    "ordinary": OrdinaryStep,
    "awp": PerturbedStep,
    "free": KeptReplays,
    "deat": RestartedReplays,
    "yopo": CheapStep,
}


def make_training_step(parts: Parts) -> TrainingStep:
    """The training step that the configuration names.

    Raises:
        UserError: none has that name.
    """
    return _find(parts.config)(parts)


def attacks_itself(config: TrainingConfig) -> bool:
    """Whether the training step that the configuration names runs all attack steps itself.

    Raises:
        UserError: none has that name.
    """
    return _find(config).attacks


def require_attacked(config: TrainingConfig, attack: Attack, *, climb: str, crafted: int) -> None:
    """Refuse what a training step that runs all attack steps itself would not heed.

    Args:
        climb: name of the loss that the objective is made for.
        crafted: how many of the attack's steps are crafted.

    Raises:
        UserError: there is any, or no training step has that name.
    """
    if not attacks_itself(config):
        return
    if config.tickets_per_step > 1 and issubclass(_find(config), RestartedReplays):
        raise UserError(
            f"training.step={config.step} updates several times on each batch: use "
            "training.tickets_per_step=1, or training.step=ordinary"
        )
    if not attack.num_steps:
        raise UserError(
            f"training.step={config.step} trains on a batch as often as the attack has steps: use "
            "attack.num_steps >= 1"
        )
    if crafted:
        raise UserError(
            f"training.step={config.step} runs the attack's {attack.num_steps} steps itself, while "
            f"it trains: use staleness.trainer_steps={attack.num_steps}, so that none is crafted"
        )
    loss = attack.loss.name if attack.loss else climb
    if attack.stop is not None or attack.projection is anywhere or loss != climb:
        raise UserError(
            f"training.step={config.step} moves all images up the objective, within the ball: use "
            "attack.name=pgd and attack.loss=null"
        )


def _find(config: TrainingConfig) -> type[OrdinaryStep]:
    return find_registered("training step", config.step, TRAINING_STEPS)
