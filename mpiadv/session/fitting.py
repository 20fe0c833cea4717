"""Parts of a method that do not go together are refused, before anything is trained."""

from mpiadv.attacks import LOSSES, Attack, make_attack, make_attacks, require_purpose
from mpiadv.contract.tickets import StalenessRule
from mpiadv.methods.objective import Objective
from mpiadv.methods.training_steps import attacks_itself, require_attacked
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
    _require_several(config, objective, attack)
    _require_own(config)


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


def _require_several(config: Config, objective: Objective, attack: AttackConfig) -> None:
    """Refuse further threat models beside what is for a single one, or which are no attacks."""
    if attack.further is None:
        return
    losses = {made.loss.name if made.loss else "ce" for made in make_attacks(attack)}
    if len(losses) > 1:
        raise UserError(
            f"attack.name={attack.name} climbs {' or '.join(sorted(losses))}, by the norm, and the "
            "threat models of attack.further are looked at together: let it climb the same in each"
        )
    alone = {
        f"training.step={config.training.step}": attacks_itself(config.training),
        f"objective.name={config.objective.name}": objective.needs_nearby,
        "data.cutmix_alpha": config.data.cutmix_alpha is not None,
    }
    for setting, is_made_for_one in alone.items():
        if is_made_for_one:
            raise UserError(
                f"attack.further names other threat models, and {setting} is for a single one: "
                "use attack.further=null, or leave it out"
            )
    schedule = config.attack_schedule
    if attack.combine == "worst" and _has_tickets_without_steps(config, attack):
        raise UserError(
            "attack.combine=worst chooses after the last attack step, and some attacks have none: "
            "use attack.num_steps, attack_schedule.first_steps and later_steps of at least 1"
        )
    if attack.epsilon_warmup_steps and not attack.epsilon:
        raise UserError(
            "attack.epsilon_warmup_steps lets all radii grow as attack.epsilon does, which is 0: "
            "use attack.epsilon_warmup_steps=0, or a radius"
        )
    is_drawn = attack.combine == "random" and any(each.epsilon is None for each in attack.further)
    if is_drawn and schedule.name == "m_plus":
        raise UserError(
            "attack_schedule.name=m_plus goes by gradients, which rotation_translation has none "
            "of: use attack.combine=worst or average, or attack_schedule.name=constant"
        )


def _has_tickets_without_steps(config: Config, attack: AttackConfig) -> bool:
    schedule = config.attack_schedule
    if schedule.name == "piecewise":
        return min(schedule.first_steps, *schedule.later_steps, attack.num_steps) == 0
    if schedule.name in ("amata", "m_plus"):
        return schedule.first_steps == 0
    return make_attack(attack).num_steps == 0


def _require_own(config: Config) -> None:
    """Refuse source networks where the gradient is that of training."""
    if config.attack.sources and attacks_itself(config.training):
        raise UserError(
            f"training.step={config.training.step} attacks the network that it trains: use "
            "attack.sources=[], or training.step=ordinary"
        )
