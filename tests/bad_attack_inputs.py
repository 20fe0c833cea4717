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
    "threat_model_without_radius": (
        _attack("pgd", attack__further="[{name: l2}]"),
        "attack.further: l2 has no radius: add epsilon, as in [[]{name: l2, epsilon: 1.0}]",
    ),
    "threat_model_with_what_is_for_others": (
        _attack("pgd", attack__further="[{name: rotation_translation, epsilon: 1}]"),
        "attack.further: rotation_translation takes no epsilon: leave it out",
    ),
    "unknown_threat_model": (
        _attack("pgd", attack__further="[{name: l3, epsilon: 1}]"),
        "attack.further[[]0].name='l3': input should be 'linf', 'l2' or 'l1', or "
        "'rotation_translation'",
    ),
    "unknown_setting_of_a_threat_model": (
        _attack("pgd", attack__further="[{name: l2, epsilon: 1, radius: 2}]"),
        "attack.further[[]0].radius=2: there is no such setting",
    ),
    "no_further_threat_model": (
        _attack("pgd", attack__further="[]"),
        "attack.further=[[][]]: expected threat models, as in attack.further=*, or null",
    ),
    "further_threat_model_without_a_list": (
        _attack("pgd", attack__further="l2"),
        "attack.further='l2': expected threat models, as in attack.further='*', or null",
    ),
    "names_for_further_threat_models": (
        _attack("pgd", attack__further="[l2, l1]"),
        "attack.further[[]0]='l2': expected a section of settings, not one value "
        "(also wrong: attack.further[[]1])",
    ),
    "source_without_a_list": (
        _attack("pgd", attack__sources="runs/a"),
        "attack.sources='runs/a': expected a list, as [[]] or [[]one, another]",
    ),
    "shift_out_of_sight": (
        _attack("pgd", attack__further="[{name: rotation_translation, pixels: 8}]"),
        "attack.further[[]0].pixels=8 shifts images of 4x4 pixels out of sight: expected less than "
        "4",
    ),
    "radius_of_a_threat_model_that_holds_any_image": (
        _attack("pgd", attack__further="[{name: linf, epsilon: 2}]"),
        "attack.further[[]0].epsilon=2*",
    ),
    "threat_models_of_a_training_step_that_attacks": (
        _attack(
            "pgd",
            attack__further="[{name: l2, epsilon: 1}]",
            training__step="free",
            staleness__trainer_steps=2,
        ),
        "attack.further names other threat models, and training.step=free is for a single one: "
        "use attack.further=null, or leave it out",
    ),
    "threat_models_with_mixed_labels": (
        _attack("pgd", attack__further="[{name: l2, epsilon: 1}]", data__cutmix_alpha=1),
        "attack.further names other threat models, and data.cutmix_alpha is for a single one: *",
    ),
    "worst_threat_model_of_no_steps": (
        _attack("pgd", attack__further="[{name: l2, epsilon: 1}]", attack__num_steps=0),
        "attack.combine=worst chooses after the last attack step, and some attacks have none: use "
        "attack.num_steps, attack_schedule.first_steps and later_steps of at least 1",
    ),
    "worst_threat_model_of_no_steps_at_first": (
        _attack(
            "pgd",
            attack__further="[{name: l2, epsilon: 1}]",
            attack_schedule__name="m_plus",
        ),
        "attack.combine=worst chooses after the last attack step, and some attacks have none: *",
    ),
    "several_tickets_of_a_step_that_replays": (
        _attack(
            "pgd",
            training__tickets_per_step=2,
            training__step="deat",
            staleness__trainer_steps=2,
        ),
        "training.step=deat updates several times on each batch: use training.tickets_per_step=1, "
        "or training.step=ordinary",
    ),
    "growing_attack_of_less_than_a_step_an_epoch": (
        _attack(
            "pgd",
            training__tickets_per_step=8,
            attack_schedule__name="m_plus",
        ),
        "attack_schedule.name=m_plus compares epochs, and one of 6 batches is less than a training "
        "step: use training.tickets_per_step <= 6",
    ),
    "three_tickets_a_step": (
        _attack("pgd", training__tickets_per_step=3),
        "training.tickets_per_step=3: expected 1, 2, 4, 8, ...",
    ),
    "growing_attack_by_gradients_that_some_tickets_have_none_of": (
        _attack(
            "pgd",
            attack__further="[{name: rotation_translation}]",
            attack__combine="random",
            attack_schedule__name="m_plus",
        ),
        "attack_schedule.name=m_plus goes by gradients, which rotation_translation has none of: *",
    ),
    "radii_that_grow_as_nothing_does": (
        _attack(
            "pgd",
            attack__further="[{name: l2, epsilon: 1}]",
            attack__epsilon=0,
            attack__epsilon_warmup_steps=5,
        ),
        "attack.epsilon_warmup_steps lets all radii grow as attack.epsilon does, which is 0: *",
    ),
    "loss_that_is_another_in_each_norm": (
        _attack("small_attacks:by_norm", attack__further="[{name: l2, epsilon: 1}]"),
        "attack.name=small_attacks:by_norm climbs ce or margin, by the norm, and the threat models "
        "of attack.further are looked at together: let it climb the same in each",
    ),
    "threat_model_that_is_none": (
        _attack("pgd", attack__further="[null]"),
        "attack.further[[]0]=None: expected a section of settings, not one value",
    ),
    "threat_model_without_name": (
        _attack("pgd", attack__further="[{epsilon: 1}]"),
        "attack.further[[]0].name: a value is missing",
    ),
    "two_unknown_threat_models": (
        _attack("pgd", attack__further="[{name: l3, epsilon: 1}, {name: l4, epsilon: 1}]"),
        "attack.further[[]0].name='l3': input should be 'linf', 'l2' or 'l1', or "
        "'rotation_translation' (also wrong: attack.further[[]1].name)",
    ),
    "source_that_is_no_run": (
        _attack("pgd", attack__sources="[nowhere]"),
        "attack.sources: nowhere is no folder of a run, as *nowhere holds no log.h5: train one "
        "there first, with output=FOLDER, or correct the name",
    ),
    "source_of_a_training_step_that_attacks": (
        _attack(
            "pgd",
            attack__sources="[nowhere]",
            training__step="free",
            staleness__trainer_steps=2,
        ),
        "training.step=free attacks the network that it trains: use attack.sources=[[]], or "
        "training.step=ordinary",
    ),
}
"""A command line, made in a folder, and the line that it gives (fnmatch)."""
