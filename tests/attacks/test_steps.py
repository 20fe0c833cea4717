"""Steps of attacks follow the norm and the radius of the ball wherever nobody gives their size."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mpiadv.attacks import ATTACKS, Attack, make_attack
from mpiadv.evaluation.attack_specs import KINDS, read_attacks
from mpiadv.evaluation.in_run import evaluation_attack, measurements, step_warnings
from mpiadv.evaluation.protocols import PROTOCOLS
from mpiadv.evaluation.subject import with_fitting_steps
from mpiadv.evaluation.verdict import probe_attacks
from mpiadv.settings import Config, override_config, parse_config
from mpiadv.studies.score import attack_of


def _config(norm: str, epsilon: float, **attack: Any) -> Config:
    return parse_config({"attack": {"norm": norm, "epsilon": epsilon, **attack}})


def _trained(norm: str, epsilon: float) -> Iterator[Attack]:
    for name in ATTACKS:
        yield make_attack(_config(norm, epsilon, name=name).attack)


def _evaluated(norm: str, epsilon: float) -> Iterator[Attack]:
    yield evaluation_attack(_config(norm, epsilon))


def _scored(norm: str, epsilon: float) -> Iterator[Attack]:
    for num_steps in (1, 8, 100):
        yield attack_of(_config(norm, epsilon), num_steps)


def _named(norm: str, epsilon: float) -> Iterator[Attack]:
    words = [*KINDS, *(word for p in PROTOCOLS.values() for word in p.words(norm, epsilon))]
    for spec in read_attacks(words, norm=norm, epsilon=epsilon, each_alone=False):
        if spec.is_gradient_attack:
            yield spec.attack


def _probing(norm: str, epsilon: float) -> Iterator[Attack]:
    for spec in probe_attacks([(norm, epsilon), (norm, epsilon / 2)], 64):
        yield spec.attack


DEFAULTS: dict[str, Callable[[str, float], Iterator[Attack]]] = {
    "training": _trained,
    "evaluation_of_a_run": _evaluated,
    "studies": _scored,
    "named_attacks_and_protocols": _named,
    "probe": _probing,
}


@pytest.mark.parametrize("defaults", DEFAULTS.values(), ids=DEFAULTS.keys())
@pytest.mark.parametrize(
    ("norm", "epsilon"), [("linf", 1 / 255), ("linf", 0.2), ("l2", 0.05), ("l2", 3.0)]
)
def test_steps_nobody_gave_fit_any_ball(
    defaults: Callable[[str, float], Iterator[Attack]], norm: str, epsilon: float
) -> None:
    attacks = list(defaults(norm, epsilon))
    assert attacks
    for attack in attacks:
        assert 1 <= attack.num_steps * attack.step_size / attack.epsilon <= 2.5 + 1e-9


FITS = {
    "madry": ("linf", 0.3, 40, 0.01, ""),
    "one_step": ("linf", 0.3, 1, 0.3, ""),
    "no_step": ("linf", 0.3, 0, 0.01, ""),
    "no_ball": ("linf", 0.0, 40, 0.01, ""),
    "short": (
        "l2", 1.0, 40, 0.01, "40 steps of 0.01 do not reach the border of the ball (l2 1)",
    ),
    "long": ("linf", 0.03, 10, 0.1, "steps of 0.1 leap over the whole ball (linf 0.03)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("norm", "epsilon", "num_steps", "step_size", "text"),
    [pytest.param(*case, id=name) for name, case in FITS.items()],
)
def test_steps_that_do_not_fit_their_ball_are_told(
    norm: str, epsilon: float, num_steps: int, step_size: float, text: str
) -> None:
    attack = Attack(norm=norm, epsilon=epsilon, num_steps=num_steps, step_size=step_size)
    assert attack.misfit == text


def test_run_warns_of_step_sizes_that_were_made_for_another_ball() -> None:
    settings = {
        "attack": {"norm": "l2", "epsilon": 1.0, "step_size": 0.01},
        "evaluation": {"step_size": 0.01},
    }
    crafting, judging = step_warnings(parse_config(settings))
    assert crafting.startswith("the training attack's 8 steps of 0.01 do not reach the border of ")
    assert judging.startswith("the evaluation's 40 steps of 0.01 do not reach the border of the ")
    assert step_warnings(Config()) == []


def test_figures_of_a_run_name_ball_and_step_size() -> None:
    assert measurements(_config("l2", 1.0))["test"].attack_name == "PGD-40 (l2 1, step 0.0625)"
    assert (
        measurements(_config("linf", 8 / 255))["test"].attack_name
        == "PGD-40 (linf 0.0313725, step 0.001961)"
    )


ELSEWHERE = {
    "same_ball": ([], 0.01),
    "same_radius_given_again": (["attack.epsilon=0.3"], 0.01),
    "another_radius": (["attack.epsilon=0.2"], None),
    "another_norm": (["attack.norm=l2"], None),
    "given": (["attack.norm=l2", "evaluation.step_size=0.02"], 0.02),
}


@pytest.mark.parametrize(
    ("overrides", "step_size"), [pytest.param(*case, id=name) for name, case in ELSEWHERE.items()]
)
def test_step_size_of_a_run_is_not_taken_into_another_ball(
    overrides: list[str], step_size: float | None
) -> None:
    trained = parse_config({"attack": {"epsilon": 0.3}, "evaluation": {"step_size": 0.01}})
    changed = override_config(trained.model_dump(), overrides)
    config, notes = with_fitting_steps(changed, trained, overrides)
    assert config.evaluation.step_size == step_size
    assert len(notes) == (step_size is None)
