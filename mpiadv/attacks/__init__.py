"""The attacks by name. They know neither communicators nor any configuration but their own."""

from collections.abc import Callable, Mapping

from mpiadv.attacks.attack import Attack, pgd
from mpiadv.attacks.climb import (
    Precision,
    forward,
    input_gradient,
    mean_magnitude,
    mixed_precision,
)
from mpiadv.attacks.fgsm import fgsm, ufgsm
from mpiadv.contract.tickets import AttackSettings
from mpiadv.settings import AttackConfig
from mpiadv.settings.registry import find_registered

__all__ = [
    "ATTACKS",
    "Attack",
    "Precision",
    "attack_num_steps",
    "forward",
    "input_gradient",
    "make_attack",
    "mean_magnitude",
    "mixed_precision",
]

ATTACKS: Mapping[str, Callable[[AttackConfig, AttackSettings], Attack]] = {
    "pgd": pgd,
    "fgsm": fgsm,
    "ufgsm": ufgsm,
}


def make_attack(config: AttackConfig, settings: AttackSettings) -> Attack:
    """The attack that `config` names, with the published number of steps and radius.

    Raises:
        UserError: no attack has that name.
    """
    return find_registered("attack", config.name, ATTACKS)(config, settings)


def attack_num_steps(config: AttackConfig) -> int:
    """How many steps the attack takes, for the trainer to publish: 1 for the single-step attacks.

    Raises:
        UserError: no attack has that name.
    """
    settings = AttackSettings(num_steps=config.num_steps, epsilon=config.epsilon)
    return make_attack(config, settings).num_steps
