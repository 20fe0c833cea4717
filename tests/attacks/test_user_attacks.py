"""Attacks of somebody's own, part by part; whatever is wrong with one is told in a line."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from mpiadv.attacks import LOSSES, Attack, Slope, Stand, make_attack, rehearse, suited
from mpiadv.attacks.attack import at_natural, gaussian, uniformly
from mpiadv.contract.tickets import AttackSettings
from mpiadv.process.errors import UserError
from mpiadv.settings import AttackConfig

LABELS = torch.tensor([0, 1, 2])


def _images() -> Tensor:
    return torch.rand(3, 1, 4, 4, generator=_generator(1))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _attack(name: str = "pgd", settings: AttackSettings | None = None, **changes: Any) -> Attack:
    return make_attack(AttackConfig(name=name, **changes), settings)


def _uphill(logits: Tensor) -> Any:
    """A look that finds the gradient 1 everywhere."""
    return lambda images: Slope(torch.ones_like(images), logits, LABELS)


def test_users_function_gets_what_was_published_and_the_arguments() -> None:
    settings = AttackSettings(num_steps=3, epsilon=0.06)
    attack = _attack("small_attacks:friendly", settings, norm="l2", arguments={"tolerance": 4})
    assert (attack.norm, attack.epsilon, attack.num_steps) == ("l2", 0.06, 3)
    assert attack.step_size == pytest.approx(0.05)
    assert attack.start_at is gaussian and attack.loss is LOSSES["margin"]
    assert attack.stop is not None
    misses = torch.tensor([3, 4, 5])
    slope = _uphill(torch.zeros(3, 3))(_images())
    assert attack.stop(slope, misses).tolist() == [False, False, True]


def test_stopped_image_stays_where_it_was_and_others_go_on() -> None:
    natural = torch.full((3, 1, 4, 4), 0.5)
    logits = torch.eye(3)[[0, 0, 2]]  # the second image is misclassified in each look
    attack = _attack("small_attacks:friendly", epsilon=0.4, step_size=0.1, num_steps=3)
    last = attack.run(_uphill(logits), natural, Stand(natural))
    assert torch.allclose(last.amax(dim=(1, 2, 3)), torch.tensor([0.8, 0.6, 0.8]))
    assert torch.equal(last.amin(dim=(1, 2, 3)), last.amax(dim=(1, 2, 3)))


def test_every_part_may_be_somebodys_own() -> None:
    attack = _attack("small_attacks:keen", epsilon=0.1, step_size=0.3, num_steps=2)
    natural = torch.full((3, 1, 4, 4), 0.5)
    start = attack.start(natural, _generator())
    assert torch.allclose(start, natural - 0.1)
    last = attack.run(_uphill(torch.zeros(3, 3)), natural, Stand(start))
    assert torch.allclose(last[..., 1::2], torch.tensor(1.0))
    assert torch.allclose(last[..., ::2], torch.tensor(0.4))
    assert attack.loss is not None and attack.loss.name == "first"


SAID = {
    "nothing_said": ({}, gaussian, "kl"),
    "loss": ({"loss": "ce"}, gaussian, "ce"),
    "start": ({"start": "uniform"}, uniformly, "kl"),
    "no_random_start": ({"random_start": False, "loss": "ce"}, at_natural, "ce"),
    "attack_that_says_its_start": ({"name": "ufgsm"}, uniformly, "kl"),
    "attack_that_says_its_loss": ({"name": "cw"}, gaussian, "margin"),
    "users_attack": ({"name": "small_attacks:friendly"}, gaussian, "margin"),
    "more_than_the_attack": (
        {"name": "small_attacks:friendly", "start": "natural", "loss": "ce"}, at_natural, "ce",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "start", "loss"), [pytest.param(*case, id=name) for name, case in SAID.items()]
)
def test_objectives_start_and_loss_are_taken_where_nothing_else_is_said(
    changes: dict[str, Any], start: Any, loss: str
) -> None:
    config = suited(AttackConfig(**changes), loss="kl", start="gaussian")
    attack = make_attack(config)
    assert attack.start_at is start and attack.loss is LOSSES[loss]
    assert config.name == changes.get("name", "pgd")


@pytest.mark.parametrize(
    "changes", [{"name": "fgsm"}, {"start": "natural"}, {"random_start": False}], ids=str
)
def test_divergence_from_where_it_has_no_slope_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="climbs kl from the natural image, where it has no slope"):
        _attack(**changes, loss="kl")


def test_gaussian_start_is_a_thousandth_away_and_in_the_ball() -> None:
    natural = torch.full((50, 1, 20, 20), 0.5)
    start = _attack(start="gaussian").start(natural, _generator())
    assert (start - natural).std() == pytest.approx(0.001, rel=0.02)
    near = _attack(start="gaussian", epsilon=0.0005).start(natural, _generator())
    assert (near - natural).abs().max() == pytest.approx(0.0005, rel=1e-3)


_PARTS = ("start_at", "step", "projection", "stop")
WRONG = {
    "no_module": ("no_such_module:attack", {}, r"cannot import 'no_such_module': ModuleNotFound"),
    "no_function": ("small_attacks:missing", {}, "has no function 'missing'"),
    "not_an_attack": ("small_attacks:nothing", {}, "returned NoneType, expected a mpiadv.attacks"),
    "other_arguments": ("small_attacks:without_the_ball", {}, "cannot be made with .*: TypeError"),
    "argument_given_twice": ("small_attacks:friendly", {"epsilon": 1}, "multiple values"),
    "steps": ("small_attacks:numbers", {"changed": {"num_steps": 1.5}}, "num_steps=1.5: expected"),
    "radius": ("small_attacks:numbers", {"changed": {"epsilon": -1}}, "epsilon=-1: expected"),
    "norm": ("small_attacks:numbers", {"changed": {"norm": "l7"}}, "norm='l7': expected one of"),
    **{
        f"another_{key}": (
            "small_attacks:numbers", {"changed": {key: value}}, f"{key}=.* as it was called with"
        )
        for key, value in (("norm", "l2"), ("epsilon", 0.01), ("num_steps", 99))
    },
    **{
        f"{part}_writes": (
            "small_attacks:careless", {"part": part}, f"{part} writes into what it is given"
        )
        for part in _PARTS
    },
    **{
        f"{part}_fails": ("small_attacks:broken", {"part": part}, f"{part} fails: RuntimeError: ou")
        for part in _PARTS
    },
    **{
        f"{part}_of_other_shape": (
            "small_attacks:misshapen", {"part": part},
            rf"{part} returned a tensor float32 \[\], expected a tensor \w+ \[",
        )
        for part in _PARTS
    },
    **{
        f"{field.name}_of_another_kind": (
            "small_attacks:odd", {"part": field.name}, rf"{field.name}=tensor\(.*: expected ",
        )
        for field in fields(Attack)
    },
    **{
        f"{part}_of_nothing": (
            "small_attacks:numbers", {"changed": {part: None}}, f"{part}=None: expected "
        )
        for part in ("norm", "epsilon", "num_steps", "step_size", "step", "projection")
    },
    "truth_for_a_number": ("small_attacks:numbers", {"changed": {"num_steps": True}}, "=True: exp"),
    "no_number": ("small_attacks:numbers", {"changed": {"epsilon": float("nan")}}, "n=nan: expect"),
    "unknown_loss": (
        "small_attacks:numbers", {"changed": {"loss": "cwe"}},
        "loss='cwe': expected ce, margin, kl, squares, None, or an AttackLoss of",
    ),
    "loss_without_a_name": ("small_attacks:wordless", {}, "loss=<function .*: expected ce, marg"),
    "loss_fails": ("small_attacks:lossy", {"kind": "fails"}, "loss 'fails' fails: IndexError"),
    "loss_of_each": ("small_attacks:lossy", {"kind": "batch"}, r"float32 \[3\], expected .* \[\]"),
    "loss_of_nothing": ("small_attacks:lossy", {"kind": "constant"}, "depend on the logits: noth"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "line"), [pytest.param(*case, id=key) for key, case in WRONG.items()]
)
def test_whatever_is_wrong_with_an_attack_is_told_in_one_line_when_it_is_tried(
    name: str, arguments: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line) as refusal:
        rehearse(_attack(name, arguments=arguments), _images(), LABELS, 3)
    assert str(refusal.value).startswith((f"attack {name!r}", "loss 'constant'"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["pgd", "fgsm", "cw", "small_attacks:friendly"])
def test_attacks_that_work_are_tried_in_silence(name: str) -> None:
    rehearse(_attack(name), _images(), LABELS, 3)


def test_loss_may_be_given_by_its_name() -> None:
    attack = _attack("small_attacks:numbers", arguments={"changed": {"loss": "margin"}})
    assert attack.loss is LOSSES["margin"]


def test_arguments_of_a_registered_attack_are_refused() -> None:
    with pytest.raises(UserError, match=r"'pgd' takes no attack.arguments: they are for"):
        _attack(arguments={"tolerance": 1})
