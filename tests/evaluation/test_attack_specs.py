"""Words for attacks become the attacks that they name, or one clear line."""

import dataclasses
from typing import Any

import pytest

from mpiadv.evaluation.attack_specs import (
    AttackSpec,
    read_attacks,
    require_within_box,
    threat_words,
)
from mpiadv.evaluation.protocols import PROTOCOLS, protocol_of
from mpiadv.process.errors import UserError
from mpiadv.settings import ThreatModel


def _specs(*words: str, **changes: Any) -> tuple[AttackSpec, ...]:
    return read_attacks(
        words, **{"norm": "linf", "epsilon": 0.3, "each_alone": False, **changes}
    )  # fmt: skip


READ = {
    "defaults": ("pgd", "pgd-40", "linf 0.3, step 0.01875, ce"),
    "everything": (
        "pgd:steps=100,step_size=0.01,restarts=20,loss=margin,norm=l2,epsilon=0.5",
        "cw-100 x20",
        "l2 0.5, step 0.01, margin",
    ),
    "fractions": ("pgd:steps=7,step_size=2/255,epsilon=8/255", "pgd-7", "linf 0.0313725, *"),
    "margin_by_name": ("cw:steps=20", "cw-20", "linf 0.3, step 0.0375, margin"),
    "one_step": ("fgsm:norm=l1,epsilon=3", "fgsm", "l1 3, ce"),
    "grid": (
        "grid:angles=3,shifts=1", "rotation-translation", "3 angles to 30 degrees, 1x1 shifts *",
    ),
    "part_of_autoattack": ("square", "square", "linf 0.3"),
}  # fmt: skip


def test_attack_of_ones_own_takes_settings_and_arguments() -> None:
    (attack,) = _specs("small_attacks:friendly:steps=7,restarts=2,tolerance=3,norm=l2")
    assert (attack.kind, attack.num_steps, attack.restarts) == ("small_attacks:friendly", 7, 2)
    assert attack.arguments == {"tolerance": 3} and attack.settings["arguments"] == {"tolerance": 3}
    assert attack.attack.step_size == pytest.approx(2.5 * 0.3 / 7)
    assert attack.is_gradient_attack and attack.details == "l2 0.3, step 0.1071, tolerance=3"
    other = _specs("small_attacks:friendly:steps=7,restarts=2,tolerance=4,norm=l2")[0]
    assert attack.seed_key != other.seed_key


def test_loss_that_is_given_rules_over_that_of_the_attack() -> None:
    words = ("small_attacks:friendly", "small_attacks:friendly:loss=kl", "pgd:loss=kl", "ufgsm")
    losses = [each.attack.loss for each in _specs(*words)]
    assert [loss.name for loss in losses if loss] == ["margin", "kl", "kl", "ce"]


@pytest.mark.parametrize(
    ("word", "title", "details"), [pytest.param(*case, id=name) for name, case in READ.items()]
)
def test_word_is_read(word: str, title: str, details: str) -> None:
    (attack,) = _specs(word)
    assert attack.title == title
    assert attack.details.startswith(details.rstrip("*"))


REFUSED = {
    "attack_out_of_the_ball": (
        "nfgsm",
        "attack 'nfgsm' is for training alone (it leaves the ball): evaluate with pgd",
    ),
    "attack_that_stops_early": (
        "friendly",
        "attack 'friendly' is for training alone (it stops where a model just fails): evaluate ",
    ),
    "unknown_attack": ("pdg", "unknown attack 'pdg': did you mean 'pgd'? Known: "),
    "unknown_setting": ("pgd:stpes=3", "attack 'pgd' does not take 'stpes': it takes norm, "),
    "setting_of_another": ("fgsm:steps=3", "attack 'fgsm' does not take 'steps'"),
    "no_value": ("pgd:steps", "attack 'pgd': 'steps': expected key=value, separated by commas"),
    "no_steps": ("pgd:steps=0", "attack 'pgd': steps='0': expected a whole number above 0"),
    "half_a_step": ("pgd:steps=1.5", "attack 'pgd': steps='1.5': expected a whole number above 0"),
    "negative_radius": ("pgd:epsilon=-1", "attack 'pgd': epsilon='-1': expected a number of "),
    "no_number": ("pgd:epsilon=nan", "attack 'pgd': epsilon='nan': expected a number of "),
    "divided_by_zero": ("pgd:epsilon=8/0", "attack 'pgd': epsilon='8/0': expected a number of "),
    "radius_in_bytes": (
        "pgd:epsilon=8",
        "attack 'pgd': epsilon=8: pixels are in [0, 1]: is 8/255 ",
    ),
    "step_in_bytes": ("pgd:step_size=2", "attack 'pgd': step_size=2: pixels are in [0, 1]: is 2/"),
    "radius_of_all": ("autoattack:epsilon=1.5", "attack 'apgd-ce': epsilon=1.5: pixels are in "),
    "radius_beyond_all": ("pgd:norm=l2,epsilon=1e300", "attack 'pgd': epsilon='1e300': expected "),
    "too_many_steps": ("pgd:steps=1000000", "attack 'pgd': steps='1000000': expected a whole num"),
    "too_many_digits": (f"pgd:steps={'1' * 5000}", "attack 'pgd': steps='111"),
    "too_many_restarts": (
        "pgd:restarts=100000000",
        "attack 'pgd': restarts='100000000': expect",
    ),
    "too_many_shifts": ("grid:shifts=100", "attack 'grid': shifts='100': expected a whole number "),
    "degrees_of_a_circle": ("grid:degrees=361", "attack 'grid': degrees='361': expected a number "),
    "unknown_norm": ("pgd:norm=l3", "attack 'pgd': norm='l3': expected one of linf, l2, l1"),
    "unknown_loss": ("pgd:loss=cwe", "attack 'pgd': loss='cwe': expected one of ce, margin"),
}


@pytest.mark.parametrize(
    ("word", "line"), [pytest.param(*case, id=name) for name, case in REFUSED.items()]
)
def test_word_that_makes_no_sense_is_refused_in_one_line(word: str, line: str) -> None:
    with pytest.raises(UserError) as refusal:
        _specs(word)
    assert str(refusal.value).startswith(line)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("norm", "diameter"), [("l2", 4.0), ("l1", 16.0)])
def test_ball_that_holds_every_image_is_refused_where_their_size_is_known(
    norm: str, diameter: float
) -> None:
    (all_of_it,) = _specs(f"pgd:norm={norm},epsilon={diameter}")
    (less,) = _specs(f"pgd:norm={norm},epsilon={diameter - 0.1}")
    require_within_box(less, (1, 4, 4))
    with pytest.raises(UserError, match=f"reaches every image .* at most {diameter:g} apart in"):
        require_within_box(all_of_it, (1, 4, 4))


def test_grid_whose_shifts_leave_nothing_of_an_image_is_refused() -> None:
    (all_of_it,) = _specs("grid:pixels=4")
    (less,) = _specs("grid:pixels=3.9")
    require_within_box(less, (1, 4, 8))
    require_within_box(all_of_it)
    with pytest.raises(UserError, match=r"'grid': pixels=4 shifts images of 4x8 .* less than 4"):
        require_within_box(all_of_it, (1, 4, 8))


def test_setting_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UserError, match="steps is there twice: give it once"):
        _specs("pgd:steps=1,steps=2")


def test_grid_of_a_single_shift_shifts_nothing() -> None:
    (attack,) = _specs("grid:degrees=20,pixels=7,angles=2,shifts=1")
    assert (attack.degrees, attack.pixels) == (20, 0)


def test_words_for_threat_models_are_read_as_these() -> None:
    threats = [
        ThreatModel(name="l2", epsilon=0.123456789),
        ThreatModel(name="rotation_translation", degrees=12.3456789, pixels=2.9999999),
    ]
    ball, grid = _specs(*threat_words(threats))
    assert (ball.kind, ball.norm, ball.epsilon) == ("pgd", "l2", 0.123456789)
    assert (grid.kind, grid.degrees, grid.pixels) == ("grid", 12.3456789, 2.9999999)


def test_radius_has_to_come_from_somewhere() -> None:
    with pytest.raises(UserError, match="attack 'pgd' has no radius: add epsilon="):
        _specs("pgd", epsilon=None)
    assert _specs("pgd:epsilon=0.1", epsilon=None)[0].epsilon == 0.1


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("madry", ["pgd-40", "pgd-100 x20"]),
        ("fast", ["pgd-50 x10"]),
        ("trades", ["pgd-20"]),
        ("deat", ["pgd-100", "cw-20", "apgd-ce", "apgd-t", "fab-t", "square"]),
        ("autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
)
def test_protocols_run_what_their_papers_say(name: str, titles: list[str]) -> None:
    assert [attack.title for attack in _specs(*protocol_of(name).words("linf", 0.3))] == titles
    assert name in PROTOCOLS


@pytest.mark.parametrize(
    ("ball", "lengths"),
    [
        (("linf", 0.3), [0.01, 0.01]),
        (("linf", 0.15), [2.5 * 0.15 / 40, 2.5 * 0.15 / 100]),
        (("l2", 0.3), [2.5 * 0.3 / 40, 2.5 * 0.3 / 100]),
    ],
    ids=["own", "another_radius", "another_norm"],
)
def test_madrys_steps_are_a_hundredth_in_his_own_ball_alone(
    ball: tuple[str, float], lengths: list[float]
) -> None:
    madry = protocol_of("madry")
    attacks = _specs(*madry.words(*ball), norm=ball[0], epsilon=ball[1])
    assert [attack.attack.step_size for attack in attacks] == pytest.approx(lengths)
    assert madry.is_made_for(*ball) == (ball == ("linf", 0.3))
    assert madry.note_elsewhere.startswith(
        "its steps of 0.01 were made for linf 0.3: here they are 2.5 "
    )


def test_attacks_that_go_alone_have_chains_of_their_own_but_parts_of_one_share_it() -> None:
    words = ("pgd", "autoattack", "fgsm")
    alone = _specs(*words, each_alone=True, sources=("other",))
    assert [attack.chain for attack in alone] == [0, 1, 1, 1, 1, 2, 3, 3]
    assert {attack.chain for attack in _specs(*words)} == {0}


def test_gradient_attacks_are_transferred_after_all_others() -> None:
    titles = [attack.title for attack in _specs("pgd:steps=2", "grid", "fgsm", sources=("a", "b"))]
    assert titles[3:] == ["pgd-2 from a", "fgsm from a", "pgd-2 from b", "fgsm from b"]
    with pytest.raises(UserError, match="--transfer-from needs an attack to transfer"):
        _specs("grid", sources=("a",))


def test_random_numbers_depend_on_the_attack_and_not_on_its_place() -> None:
    (attack,) = _specs("pgd")
    elsewhere = dataclasses.replace(attack, chain=3, source="other")
    assert attack.seed_key == elsewhere.seed_key
    assert attack.seed_key != _specs("pgd:restarts=2")[0].seed_key
    assert len({part.seed_key for part in _specs("autoattack")}) == 1


@pytest.mark.parametrize(
    ("word", "tries"),
    [("grid", 775), ("grid:pixels=0", 31), ("grid:degrees=0", 25), ("grid:degrees=0,pixels=0", 1)],
)
def test_no_placement_is_tried_twice(word: str, tries: int) -> None:
    (spec,) = _specs(word)
    assert spec.num_restarts == tries
