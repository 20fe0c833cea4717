"""The attacks by name, for training and for evaluation."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Generator, Tensor

from mpiadv.attacks.attack import STARTS, Attack, anywhere, at_natural, uniformly
from mpiadv.attacks.climb import Slope
from mpiadv.attacks.losses import LOSSES
from mpiadv.attacks.user import users_attack
from mpiadv.contract.tickets import AttackSettings
from mpiadv.process.errors import UserError, shown
from mpiadv.settings import AttackConfig
from mpiadv.settings.registry import find_registered, is_dotted


@dataclass(frozen=True, kw_only=True)
class Named:
    """An attack that has a name.

    Attributes:
        make: from `norm`, `epsilon`, `num_steps` and `step_size` to the attack.
        num_steps: of all its attacks, whatever number was published.
        relative_step_size: as in the configuration, which it replaces.
        takes_tau: whether `make` takes the published `tau`, too.
        unfit: why its images say little of how robust a model is; or empty.
    """

    make: Callable[..., Attack]
    num_steps: int | None = None
    relative_step_size: float | None = None
    takes_tau: bool = False
    unfit: str = ""


def friendly(*, tau: int, **parts: Any) -> Attack:
    """PGD that leaves an image where the look after `tau` others finds it misclassified.

    Zhang et al. 2020, "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger",
    algorithm 1; their code also adds 0.001 N(0, 1) at each step, this does not.
    """

    def stop(slope: Slope, misses: Tensor) -> Tensor:
        return misses > tau

    return Attack(**parts, stop=stop)


def around_twice(attack: Attack, natural: Tensor, generator: Generator) -> Tensor:
    """Anywhere in the ball of twice the radius."""
    wider = dataclasses.replace(attack, epsilon=2 * attack.epsilon)
    return uniformly(wider, natural, generator)


ATTACKS: Mapping[str, Named] = {
    "pgd": Named(make=Attack),
    # Goodfellow et al. 2015, section 4.
    "fgsm": Named(make=partial(Attack, start_at=at_natural), num_steps=1, relative_step_size=1.0),
    # Wong et al. 2020, "Fast is better than free", section 4 and algorithm 3.
    "ufgsm": Named(make=partial(Attack, start_at=uniformly), num_steps=1, relative_step_size=1.25),
    # De Jorge et al. 2022, "Make Some Noise: Reliable and Efficient Single-Step Adversarial
    # Training", algorithm 1: the step is added to the noise, and only the box bounds their sum.
    "nfgsm": Named(
        make=partial(Attack, start_at=around_twice, projection=anywhere),
        num_steps=1,
        relative_step_size=1.0,
        unfit="it leaves the ball",
    ),
    "friendly": Named(make=friendly, takes_tau=True, unfit="it stops where a model just fails"),
    # PGD on the margin, as Madry et al. 2018 use it.
    "cw": Named(make=partial(Attack, loss=LOSSES["margin"])),
}


def make_attack(config: AttackConfig, settings: AttackSettings | None = None) -> Attack:
    """The attack that `config` names; `settings` are the published number of steps and radius.

    Raises:
        UserError: no attack has that name, a user's attack fails, or it would climb nothing.
    """
    attack = _as_named(config, settings)
    start = attack.start_at or (uniformly if config.random_start else at_natural)
    start = STARTS[config.start] if config.start else start
    loss = LOSSES[config.loss or "ce"] if config.loss or not attack.loss else attack.loss
    if loss.needs_natural and start is at_natural:
        raise UserError(
            f"attack {config.name!r} climbs {loss.name} from the natural image, where it has no "
            "slope: use attack.start=gaussian, attack.start=uniform or another loss"
        )
    return dataclasses.replace(attack, start_at=start, loss=loss)


def attack_num_steps(config: AttackConfig) -> int:
    """How many steps the attack takes, for the trainer to publish. Raises as `make_attack` does."""
    return _as_named(config).num_steps


def require_purpose(config: AttackConfig, taus: Sequence[int] = ()) -> None:
    """Refuse a friendly attack that is none: of a single step, or of no more than `tau`.

    And any other with `taus`, which are for friendly ones.

    Raises:
        UserError: it is so, or as `make_attack` does.
    """
    takes_tau, least = _find(config).takes_tau, max(2, config.tau + 1)
    if taus and not takes_tau:
        raise UserError(
            f"attack_schedule.later_tau={shown(list(taus))} is of friendly attacks, and "
            f"attack.name={config.name} has no tau: use attack.name=friendly, or leave it out"
        )
    if takes_tau and config.num_steps < least:
        raise UserError(
            f"attack {config.name!r} of attack.num_steps={config.num_steps} and "
            f"attack.tau={config.tau} spares no image a step once it is misclassified: use "
            f"attack.num_steps >= {least}, or attack.name=pgd"
        )


def suited(config: AttackConfig, *, loss: str, start: str) -> AttackConfig:
    """The configuration with the loss and start of an objective, where nothing else is said.

    Raises as `make_attack` does.
    """
    attack = _as_named(config)
    is_start_said = config.start or attack.start_at or not config.random_start
    return config.model_copy(
        update={
            "loss": config.loss or (None if attack.loss else loss),
            "start": config.start if is_start_said else start,
        }
    )


def _as_named(config: AttackConfig, settings: AttackSettings | None = None) -> Attack:
    """The attack with start and loss only where the name alone says them."""
    asked = settings or AttackSettings(
        num_steps=config.num_steps, epsilon=config.epsilon, tau=config.tau
    )
    named = _find(config)
    num_steps = asked.num_steps if named.num_steps is None else named.num_steps
    relative = named.relative_step_size or config.relative_step_size
    fitting = relative * asked.epsilon / max(1, num_steps)
    return named.make(
        norm=config.norm,
        epsilon=asked.epsilon,
        num_steps=num_steps,
        step_size=fitting if config.step_size is None else config.step_size,
        **({"tau": asked.tau} if named.takes_tau else {}),
    )


def _find(config: AttackConfig) -> Named:
    """The registered attack, or the user's. Raises as `make_attack` does."""
    if is_dotted(config.name):
        return Named(make=users_attack(config.name, config.arguments))
    if config.arguments:
        raise UserError(
            f"attack {config.name!r} takes no attack.arguments: they are for functions of your own"
        )
    return find_registered("attack", config.name, ATTACKS)
