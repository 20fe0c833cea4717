"""The attacks on models whose answer is known, and against a plain PGD written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import (
    ATTACKS,
    Attack,
    Climb,
    Look,
    Slope,
    Stand,
    attack_num_steps,
    make_attack,
)
from mpiadv.attacks.attack import at_natural
from mpiadv.attacks.norms import NORMS
from mpiadv.contract.tickets import AttackSettings
from mpiadv.process.errors import UserError
from mpiadv.settings import AttackConfig

TINY = 1e-5
"""Rounding of float32 sums of pixels in [0, 1]."""


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(seed: int = 0, size: int = 6) -> Tensor:
    return torch.rand(5, 2, size, size, generator=_generator(seed))


BEGIN = Stand(_images())


def _attack(**changes: Any) -> Attack:
    return make_attack(AttackConfig(**changes))


def _convolutional() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    )


def _in_eyes_of(model: nn.Module, labels: Tensor) -> Look:
    climb = Climb(
        model=model, precision="float32", loss=None, labels=labels, natural=labels, natural_seed=0
    )
    return lambda images: climb.slope(images, seed=0)


def _look(gradient: Callable[[Tensor], Tensor]) -> Look:
    """The same logits everywhere, and some gradient."""
    return lambda images: Slope(gradient(images), torch.zeros(len(images), 3), _labels(images))


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def _last(attack: Attack, look: Look, natural: Tensor) -> Tensor:
    return attack.run(look, natural, Stand(attack.start(natural, _generator())))


def _distance(norm: str, delta: Tensor) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


NORM_NAMES = pytest.mark.parametrize("norm", ["linf", "l2"])


@given(
    ball=st.tuples(st.just("linf"), st.floats(0, 1, width=32))
    | st.tuples(st.just("l2"), st.floats(0, 2, width=32)),
    name=st.sampled_from(sorted(ATTACKS.keys() - {"nfgsm"})),
    num_steps=st.integers(0, 5),
    relative_step_size=st.floats(0.1, 20),
    random_start=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_every_step_stays_in_the_ball_and_the_box(
    ball: tuple[str, float], seed: int, **changes: Any
) -> None:
    norm, epsilon = ball
    natural = _images(seed).mul(1.5).sub(0.25).clamp(0, 1)
    slope = torch.randn(natural.shape, generator=_generator(seed + 1))
    attack = _attack(norm=norm, epsilon=epsilon, **changes)
    start = attack.start(natural, _generator(seed))
    look, begin = _look(lambda images: slope * images), Stand(start)
    for images, _ in [begin, *attack.steps(look, natural, begin)]:
        assert images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1
        assert _distance(norm, images - natural).max() <= epsilon + TINY


def _plain_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, k: int) -> Tensor:
    start = torch.rand(x.shape, generator=_generator()) * 2 - 1
    adversarial = torch.clamp(x + start * epsilon, 0, 1)
    for _ in range(k):
        adversarial = adversarial.detach().requires_grad_()
        loss = F.cross_entropy(model(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + 2.5 * epsilon / k * gradient.sign()
        delta = torch.clamp(moved - x, -epsilon, epsilon)
        adversarial = torch.clamp(x + delta, 0, 1)
    return adversarial


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_attack_equals_a_plain_pgd_bitwise(num_steps: int) -> None:
    model, natural, labels = _convolutional(), _images(), torch.tensor([0, 1, 2, 1, 0])
    expected = _plain_pgd(model, natural, labels, 0.3, num_steps)
    attack = _attack(epsilon=0.3, num_steps=num_steps)
    assert torch.equal(_last(attack, _in_eyes_of(model, labels), natural), expected)


@NORM_NAMES
def test_steps_in_two_parts_equal_steps_in_one(norm: str) -> None:
    model, natural, labels = _convolutional(), _images(), torch.tensor([0, 1, 2, 1, 0])
    look, attack = _in_eyes_of(model, labels), _attack(norm=norm, num_steps=6)
    start = attack.start(natural, _generator())
    *_, half = attack.steps(look, natural, Stand(start), last=4)
    *_, parts = attack.steps(look, natural, half, first=4)
    assert torch.equal(parts.images, _last(attack, look, natural))


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (3, 2), (0, 9), (9, None)])
def test_steps_outside_the_attack_are_refused(first: int, last: int | None) -> None:
    attack = _attack(num_steps=8)
    with pytest.raises(ValueError, match="attack of 8 steps"):
        attack.steps(_look(torch.ones_like), _images(), BEGIN, first=first, last=last)


def test_gradient_is_asked_for_only_when_the_step_is() -> None:
    calls = []

    def gradient(images: Tensor) -> Tensor:
        calls.append(images)
        return torch.ones_like(images)

    steps = _attack(num_steps=3).steps(_look(gradient), _images(), BEGIN)
    assert calls == []
    for number, _ in enumerate(steps, start=1):
        assert len(calls) == number
    assert len(calls) == 3


def test_caller_keeps_its_gradients_between_steps() -> None:
    steps = _attack().steps(_look(torch.ones_like), _images(), BEGIN)
    modes = [torch.is_grad_enabled() for _ in steps]
    assert modes == [True] * 8


def test_parameters_changed_between_steps_are_used_by_the_next() -> None:
    model, natural, labels = _convolutional(), _images(), torch.tensor([0, 1, 2, 1, 0])
    other = _convolutional().requires_grad_(False)
    for parameter in other.parameters():
        parameter.neg_()
    attack = _attack(num_steps=2, random_start=False, step_size=0.1)
    steps = attack.steps(_in_eyes_of(model, labels), natural, Stand(natural))
    first = next(steps)
    model.load_state_dict(other.state_dict())
    second = next(steps)
    *_, expected = attack.steps(_in_eyes_of(other, labels), natural, first, first=1)
    assert torch.equal(second.images, expected.images)


def test_no_steps_leave_the_start() -> None:
    attack = _attack(num_steps=0, random_start=False)
    assert list(attack.steps(_look(torch.ones_like), _images(), BEGIN)) == []
    assert torch.equal(attack.start(_images(), _generator()), _images())


@NORM_NAMES
def test_batch_without_images_is_attacked_to_no_images(norm: str) -> None:
    nothing = _images()[:0]
    look = _in_eyes_of(_convolutional(), torch.zeros(0, dtype=torch.int64))
    assert _last(_attack(norm=norm), look, nothing).shape == nothing.shape


@pytest.mark.parametrize("name", ["pgd", "fgsm"])
def test_without_random_start_no_random_number_is_drawn(name: str) -> None:
    generator = _generator()
    before = generator.get_state()
    _attack(name=name, random_start=False).start(_images(), generator)
    assert torch.equal(generator.get_state(), before)


@NORM_NAMES
def test_attack_on_a_linear_model_reaches_the_optimum(norm: str) -> None:
    weights = torch.randn(1, 2, 6, 6, generator=_generator(3))
    natural = 0.4 + 0.2 * _images()  # so far from the box that only the ball counts
    attack = _attack(norm=norm, epsilon=0.1, num_steps=30, step_size=0.05)
    reached = _last(attack, _look(weights.expand_as), natural)
    gained = ((reached - natural) * weights).sum(dim=(1, 2, 3))
    dual = weights.abs().sum() if norm == "linf" else weights.norm()
    assert torch.allclose(gained, 0.1 * dual, rtol=1e-4)


@pytest.mark.parametrize("position", [0, 37, 71])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@NORM_NAMES
def test_a_gradient_that_is_not_finite_reaches_the_images(
    norm: str, value: float, position: int
) -> None:
    def gradient(images: Tensor) -> Tensor:
        broken = torch.ones_like(images)
        broken[1].view(-1)[position] = value
        return broken

    reached = _last(_attack(norm=norm, num_steps=2), _look(gradient), _images())
    assert reached[1].isnan().any()
    assert reached[[0, 2, 3, 4]].isfinite().all()


@NORM_NAMES
def test_zero_gradient_moves_nothing(norm: str) -> None:
    attack = _attack(norm=norm, random_start=False)
    natural = _images()
    assert torch.allclose(_last(attack, _look(torch.zeros_like), natural), natural, atol=1e-7)
    assert not NORMS[norm].ascend(torch.zeros_like(natural), 0.1).any()


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1.0, 1e25])
def test_l2_step_has_its_length_for_any_scale_of_gradient(scale: float) -> None:
    gradient = (_images() + 0.5) * scale
    step = NORMS["l2"].ascend(gradient, 0.25)
    assert torch.allclose(_distance("l2", step), torch.tensor(0.25), rtol=1e-4)


def test_l2_projection_leaves_what_is_inside() -> None:
    delta = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 1.0)])
    projected = NORMS["l2"].project(delta, 0.5)
    assert torch.equal(projected[0], delta[0])
    assert torch.allclose(projected[1], torch.full((1, 2, 2), 0.25))


def test_l2_start_is_uniform_in_the_ball() -> None:
    """In n dimensions (radius / epsilon) ** n is uniform in [0, 1]; Kolmogorov-Smirnov bound."""
    count, epsilon = 20_000, 0.7
    delta = NORMS["l2"].random(torch.zeros(count, 1, 2, 2), epsilon, _generator(5))
    radii = (_distance("l2", delta) / epsilon).pow(4).sort().values
    uniform = (torch.arange(count) + 0.5) / count
    assert (radii - uniform).abs().max() < 1.63 / count**0.5  # 99 %
    assert delta.mean(dim=0).abs().max() < 5 * epsilon / (6 * count) ** 0.5


def test_linf_start_is_uniform_in_the_ball() -> None:
    delta = NORMS["linf"].random(torch.zeros(20_000, 1, 1, 1), 0.3, _generator(5)).flatten()
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    assert ((delta.sort().values / 0.3 + 1) / 2 - uniform).abs().max() < 1.63 / 20_000**0.5


def test_start_is_a_function_of_the_seed() -> None:
    attack = _attack()
    first, again, other = (attack.start(_images(), _generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "num_steps", "step_size", "random_start"),
    [
        pytest.param({"name": "pgd", "num_steps": 5}, 5, 0.1, True, id="pgd"),
        pytest.param({"name": "pgd", "num_steps": 0}, 0, 0.5, True, id="pgd-no-steps"),
        pytest.param({"name": "pgd", "step_size": 0.01}, 8, 0.01, True, id="pgd-step-size"),
        pytest.param({"name": "pgd", "num_steps": 2, "relative_step_size": 1.0,
                      "random_start": False}, 2, 0.1, False, id="pgd-relative"),
        pytest.param({"name": "fgsm"}, 1, 0.2, False, id="fgsm"),
        pytest.param({"name": "ufgsm"}, 1, 0.25, True, id="ufgsm"),
        pytest.param({"name": "ufgsm", "step_size": 0.04}, 1, 0.04, True, id="ufgsm-step-size"),
    ],
)  # fmt: skip
def test_named_attack_has_the_steps_of_its_paper(
    changes: dict[str, Any], num_steps: int, step_size: float, random_start: bool
) -> None:
    attack = _attack(epsilon=0.2, **changes)
    assert attack.num_steps == num_steps
    assert attack.step_size == pytest.approx(step_size)
    assert (attack.start_at is not at_natural) == random_start
    assert attack_num_steps(AttackConfig(epsilon=0.2, **changes)) == num_steps


def test_published_settings_rule_over_the_configuration() -> None:
    attack = make_attack(AttackConfig(), AttackSettings(num_steps=3, epsilon=0.06))
    assert (attack.num_steps, attack.epsilon) == (3, 0.06)
    assert attack.step_size == pytest.approx(0.05)


def test_ufgsm_goes_beyond_the_ball_and_comes_back() -> None:
    natural = torch.full((2, 1, 4, 4), 0.5)
    attack = _attack(name="ufgsm", epsilon=0.2)
    start = attack.start(natural, _generator())
    ((reached, _),) = attack.steps(_look(torch.ones_like), natural, Stand(start))
    assert torch.equal(reached, torch.clamp(start + 0.25 - natural, -0.2, 0.2) + natural)
    assert (reached == reached.max()).float().mean() > 0.5


def test_unknown_attack_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown attack 'pdg': did you mean 'pgd'\?"):
        attack_num_steps(AttackConfig(name="pdg"))
