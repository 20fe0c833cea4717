"""Parts of a method that do not go together are refused, before anything is trained."""

from mpiadv.attacks import LOSSES, Attack, make_attack, require_purpose
from mpiadv.contract.tickets import StalenessRule
from mpiadv.methods.objective import Objective
from mpiadv.methods.training_steps import require_attacked
from mpiadv.process.errors import UserError
from mpiadv.settings import AttackConfig, Config


def require_fitting(
    config: Config, objective: Objective, attack: AttackConfig, rule: StalenessRule
) -> None:
    """Refuse an attack that does not fit the objective, the training step or the schedule.

    `attack` is that of the run, with what the objective asks for.

    Raises:
        UserError: it does not fit; or as `make_attack`.
    """
    require_purpose(attack, config.attack_schedule.later_tau)
    made = make_attack(attack)
    rule.require_steps_for_trainer(made.num_steps)
    crafted = rule.crafting_steps(made.num_steps)
    require_attacked(config.training, made, climb=objective.climb, crafted=crafted)
    _require_natural(config, objective, made)
    _require_mixable(config, objective, made)


def _require_natural(config: Config, objective: Objective, attack: Attack) -> None:
    """Refuse to drive images from predictions that nothing trains to stay where they are."""
    if attack.loss and attack.loss.needs_natural and not objective.needs_natural:
        raise UserError(
            f"attacks climb {attack.loss.name}, away from the natural prediction, and "
            f"objective.name={config.objective.name} is of no natural images: use "
            "objective.name=trades or score, or attack.loss=ce"
        )


def _require_mixable(config: Config, objective: Objective, attack: Attack) -> None:
    """Refuse mixed labels where one is needed, by what is trained or by what attacks climb."""
    if config.data.cutmix_alpha is None:
        return
    loss = attack.loss or LOSSES["ce"]
    if not (objective.takes_targets and loss.takes_targets) or attack.stop is not None:
        raise UserError(
            f"data.cutmix_alpha mixes labels, and objective.name={config.objective.name} or "
            f"attack.name={config.attack.name}, which climbs {loss.name}, needs a single one: use "
            "objective.name=adversarial, trades, alp or score with attack.name=pgd, or "
            "data.cutmix_alpha=null"
        )
