"""What is set although nothing reads it is told, and nothing else is."""

import pytest

from mpiadv.settings import Config, load_config
from mpiadv.settings.unread import ReadWith, unread_settings

UNREAD = {
    "attack.relative_step_size=2": ("attack.step_size=0.1", "attack.step_size=null"),
    "attack.random_start=false": ("attack.start=gaussian", "attack.start=null"),
    "attack.combine=average": ("", "attack.further=[{name: l2, epsilon: 1}]"),
    "attack_schedule.first_steps=3": ("", "attack_schedule.name=m_plus"),
    "attack_schedule.milestones=[3]": ("", "attack_schedule.name=piecewise"),
    "attack_schedule.later_steps=[3]": ("", "attack_schedule.name=piecewise"),
    "attack.tau=2": ("attack.name=cw", "attack.name=friendly"),
    "attack_schedule.later_tau=[3]": (
        "attack_schedule.name=amata",
        "attack_schedule.name=piecewise",
    ),
    "attack_schedule.gamma=2": ("", "attack_schedule.name=m_plus"),
    "objective.beta=1": ("", "objective.name=trades"),
    "objective.label_smoothing=0.1": ("objective.name=mart", "objective.name=alp"),
    "optimizer.momentum=0.5": ("", "optimizer.name=sgd"),
    "optimizer.nesterov=true": ("", "optimizer.name=sgd"),
    "optimizer.decay_norms_and_biases=false": ("", "optimizer.weight_decay=0.1"),
    "optimizer.betas=[0.5, 0.5]": ("optimizer.name=sgd", "optimizer.name=adamw"),
    "schedule.milestones=[3]": ("", "schedule.name=multistep"),
    "schedule.gamma=0.5": ("", "schedule.name=multistep"),
    "schedule.warmup_steps=5": ("", "schedule.name=cosine"),
    "training.team_layout=first": ("", "training={trainers: 2, tickets_per_step: 2}"),
    "schedule.rising_fraction=0.5": ("schedule.name=cosine", "schedule.name=one_cycle"),
    "average.warmup_fraction=0.5": ("", "average.decay=0.9"),
    "training.awp_gamma=0.1": ("", "training.step=awp"),
    "training.yopo_steps=2": ("training.step=awp", "training.step=yopo"),
    "training.awp_from_step=5": ("", "training.step=awp"),
    "data.rand_augment_magnitude=3": ("", "data.rand_augment_ops=2"),
    "guard.num_steps=3": ("", "guard.every_steps=5"),
    "guard.num_samples=3": ("", "guard.every_steps=5"),
    "guard.largest_fall=0.5": ("", "guard.every_steps=5"),
    "guard.action=stop": ("", "guard.every_steps=5"),
    "log.snapshot_images=3": ("", "log.snapshot_every=5"),
}
"""A setting, with what it has no effect, and with what it has one."""


def _lines(*words: str) -> list[str]:
    return list(unread_settings(load_config(None, [word for word in words if word])))


@pytest.mark.parametrize("setting", UNREAD)
def test_setting_without_effect_is_told(setting: str) -> None:
    (line,) = _lines(setting, UNREAD[setting][0])
    assert line.startswith(f"{setting.partition('=')[0]} has no effect: it is read only with ")


@pytest.mark.parametrize("setting", UNREAD)
def test_setting_with_effect_is_not_told(setting: str) -> None:
    assert _lines(UNREAD[setting][1], setting) == []


def test_table_has_every_setting_that_is_read_with_others_only() -> None:
    known = {
        f"{name}.{key}"
        for name in Config.model_fields
        for key, field in getattr(type(getattr(Config(), name)), "model_fields", {}).items()
        if any(isinstance(each, ReadWith) for each in field.metadata)
    }
    assert known == {setting.partition("=")[0] for setting in UNREAD}
