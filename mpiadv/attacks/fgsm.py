"""The single-step attacks. They take one step, whatever number of steps was published.

An explicit `step_size` is honoured; `relative_step_size` belongs to PGD.
"""

from mpiadv.attacks.attack import Attack
from mpiadv.attacks.norms import NORMS
from mpiadv.contract.tickets import AttackSettings
from mpiadv.settings import AttackConfig

UFGSM_STEP = 1.25
"""Step of U-FGSM in units of epsilon: Wong et al. 2020, "Fast is better than free", section 4."""


def fgsm(config: AttackConfig, settings: AttackSettings) -> Attack:
    """One step of epsilon from the natural image: Goodfellow et al. 2015, section 4."""
    return _single_step(config, settings, step_size=settings.epsilon, random_start=False)


def ufgsm(config: AttackConfig, settings: AttackSettings) -> Attack:
    """One step of 1.25 epsilon from a uniform start: Wong et al. 2020, algorithm 3."""
    return _single_step(
        config, settings, step_size=UFGSM_STEP * settings.epsilon, random_start=True
    )


def _single_step(
    config: AttackConfig, settings: AttackSettings, *, step_size: float, random_start: bool
) -> Attack:
    return Attack(
        norm=NORMS[config.norm],
        epsilon=settings.epsilon,
        num_steps=1,
        step_size=step_size if config.step_size is None else config.step_size,
        random_start=random_start,
    )
