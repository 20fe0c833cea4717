"""What is wrong with an attack to the command line, and the line that each of it gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from launching import words_of


def _attack(name: str, **settings: Any) -> Callable[[Path], list[str]]:
    return lambda folder: words_of(folder / "new", attack__name=name, **settings)


ATTACK_CASES = {
    "missing_attack": (
        _attack("small_attacks:none_such"),
        "attack 'small_attacks:none_such': module 'small_attacks' has no function 'none_such'",
    ),
    "no_attack": (
        _attack("small_attacks:nothing"),
        "attack 'small_attacks:nothing' returned NoneType, expected a mpiadv.attacks.Attack",
    ),
    "attack_refuses_arguments": (
        _attack("small_attacks:friendly", attack__arguments="{patience: 3}"),
        "attack 'small_attacks:friendly' cannot be made with {*'patience': 3}: TypeError: *",
    ),
    "attack_fails": (
        _attack("small_attacks:broken", attack__arguments="{part: step}"),
        "attack 'small_attacks:broken': step fails: RuntimeError: out of ideas "
        "(at small_attacks.py:*)",
    ),
    "attack_of_other_shape": (
        _attack("small_attacks:misshapen", attack__arguments="{part: stop}"),
        "attack 'small_attacks:misshapen': stop returned a tensor float32 [[]], expected a tensor "
        "bool [[]2]",
    ),
    **{
        f"attack_of_another_kind_of_{part}": (
            _attack("small_attacks:odd", attack__arguments=f"{{part: {part}}}"),
            f"attack 'small_attacks:odd': {part}=tensor*: expected *",
        )
        for part in ("loss", "projection", "epsilon")
    },
    "arguments_of_a_registered_attack": (
        _attack("pgd", attack__arguments="{tolerance: 3}"),
        "attack 'pgd' takes no attack.arguments: they are for functions of your own",
    ),
    "slope_of_zero": (
        _attack("fgsm", objective__name="trades"),
        "attack 'fgsm' climbs kl from the natural image, where it has no slope: use *",
    ),
    "climb_of_natural_predictions_that_nothing_trains": (
        _attack("pgd", attack__loss="kl"),
        "attacks climb kl, away from the natural prediction, and objective.name=adversarial is of "
        "no natural images: use objective.name=trades or score, or attack.loss=ce",
    ),
    "mixed_labels_where_one_is_needed": (
        _attack("cw", data__cutmix_alpha=1),
        "data.cutmix_alpha mixes labels, and objective.name=adversarial or attack.name=cw, which "
        "climbs margin, needs a single one: use objective.name=adversarial, trades, alp or score "
        "with attack.name=pgd, or data.cutmix_alpha=null",
    ),
    "mixed_labels_with_mart": (
        _attack("pgd", data__cutmix_alpha=1, objective__name="mart"),
        "data.cutmix_alpha mixes labels, and objective.name=mart or attack.name=pgd, *",
    ),
    "crafted_steps_of_a_training_step_that_attacks": (
        _attack("pgd", training__step="free", staleness__trainer_steps=1),
        "training.step=free runs the attack's 2 steps itself, while it trains: use "
        "staleness.trainer_steps=2, so that none is crafted",
    ),
    "no_steps_of_a_training_step_that_attacks": (
        _attack("pgd", training__step="deat", attack__num_steps=0),
        "training.step=deat trains on a batch as often as the attack has steps: use "
        "attack.num_steps >= 1",
    ),
    "stop_of_a_training_step_that_attacks": (
        _attack("friendly", training__step="deat", staleness__trainer_steps=2),
        "training.step=deat moves all images up the objective, within the ball: use "
        "attack.name=pgd and attack.loss=null",
    ),
    "loss_of_a_training_step_that_attacks": (
        _attack("cw", training__step="free", staleness__trainer_steps=2),
        "training.step=free moves all images up the objective, within the ball: use *",
    ),
    "mixed_labels_of_an_attack_that_stops": (
        _attack("friendly", data__cutmix_alpha=1),
        "data.cutmix_alpha mixes labels, and objective.name=adversarial or attack.name=friendly, *",
    ),
    "tau_of_an_attack_that_has_none": (
        _attack(
            "pgd",
            attack_schedule__name="piecewise",
            attack_schedule__first_steps=1,
            attack_schedule__milestones="[5]",
            attack_schedule__later_steps="[2]",
            attack_schedule__later_tau="[1]",
        ),
        "attack_schedule.later_tau=[[]1[]] is of friendly attacks, and attack.name=pgd has *",
    ),
    "unknown_training_step": (
        _attack("pgd", training__step="freee"),
        "unknown training step 'freee': did you mean 'free'? Known: awp, deat, free, ordinary, *",
    ),
    "friendly_attack_of_a_single_step": (
        _attack("friendly", attack__num_steps=1),
        "attack 'friendly' of attack.num_steps=1 and attack.tau=0 spares no image a step "
        "once it is misclassified: use attack.num_steps >= 2, or attack.name=pgd",
    ),
    "growing_attack_of_a_single_step": (
        _attack("nfgsm", attack_schedule__name="m_plus"),
        "attack_schedule.name=m_plus has attacks of other numbers of steps, and attack.name=nfgsm "
        "takes 1 where 0 are wanted: use attack.name=pgd, or attack_schedule.name=constant",
    ),
    "unknown_attack_loss": (
        _attack("pgd", attack__loss="cwe"),
        "attack.loss='cwe': input should be 'ce', 'margin', 'kl' or 'squares'",
    ),
}
"""A command line, made in a folder, and the line that it gives (fnmatch)."""
