"""Attacks of the literature against a few lines of their own."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import Attack, Climb, Look, Slope, Stand, make_attack, require_purpose
from mpiadv.attacks.attack import STOPPED
from mpiadv.contract.tickets import AttackSettings
from mpiadv.process.errors import UserError
from mpiadv.settings import AttackConfig


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 12) -> Tensor:
    return torch.rand(count, 1, 5, 5, generator=_generator(3))


LABELS = torch.arange(12) % 3


def _model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def _attack(settings: AttackSettings | None = None, **changes: Any) -> Attack:
    return make_attack(AttackConfig(**changes), settings)


def _in_eyes_of(model: nn.Module) -> Look:
    climb = Climb(
        model=model, precision="float32", loss=None, labels=LABELS, natural=LABELS, natural_seed=0
    )
    return lambda images: climb.slope(images, seed=0)


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def _plain_friendly(
    model: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, k: int, tau: int
) -> Tensor:
    """As in the authors' `earlystop`, without the noise at each step, one image at a time."""
    noise = torch.rand(x.shape, generator=_generator()) * 2 - 1
    found = []
    for image, begin, label in zip(x, (x + epsilon * noise).clamp(0, 1), y, strict=True):
        moved, control = begin[None], tau
        for _ in range(k):
            if model(moved).argmax() != label:
                if control == 0:
                    break
                control -= 1
            step = 2.5 * epsilon / k * _gradient(model, moved, label[None]).sign()
            moved = (image + (moved + step - image).clamp(-epsilon, epsilon)).clamp(0, 1)
        found.append(moved[0].detach())
    return torch.stack(found)


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_friendly_attack_stops_each_image_as_its_authors_have_it(tau: int) -> None:
    model, natural = _model(), _images()
    attack = _attack(name="friendly", epsilon=0.2, num_steps=6, tau=tau)
    start = Stand(attack.start(natural, _generator()))
    found = attack.run(_in_eyes_of(model), natural, start)
    expected = _plain_friendly(model, natural, LABELS, epsilon=0.2, k=6, tau=tau)
    torch.testing.assert_close(found, expected)
    without = _attack(epsilon=0.2, num_steps=6).run(_in_eyes_of(model), natural, start)
    is_stopped = (found != without).flatten(1).any(dim=1)
    assert 0 < is_stopped.sum() < len(natural) or tau == 3


@pytest.mark.parametrize("first", range(6))
def test_friendly_attack_in_two_parts_equals_one_in_one(first: int) -> None:
    natural, look = _images(), _in_eyes_of(_model())
    attack = _attack(name="friendly", epsilon=0.2, num_steps=6, tau=1)
    start = Stand(attack.start(natural, _generator()))
    *_, part = start, *attack.steps(look, natural, start, last=first)
    in_parts = attack.run(look, natural, part, first=first)
    assert torch.equal(in_parts, attack.run(look, natural, start))


def test_image_that_is_stopped_is_so_in_the_next_part_too() -> None:
    """Whatever the rule would say of the looks that it has there."""
    looks = iter([True, False, False])

    def stop(slope: Slope, misses: Tensor) -> Tensor:
        return torch.full(misses.shape, next(looks))

    attack = Attack(norm="linf", epsilon=1.0, num_steps=3, step_size=0.1, stop=stop)
    natural = torch.zeros(2, 1, 2, 2)
    uphill = Slope(torch.ones(2, 1, 2, 2), torch.eye(2), torch.arange(2))
    *_, part = attack.steps(lambda images: uphill, natural, Stand(natural), last=2)
    assert part.notes is not None and part.notes.tolist() == [STOPPED, STOPPED]
    assert torch.equal(attack.run(lambda images: uphill, natural, part, first=2), natural)


def test_published_tau_counts() -> None:
    settings = AttackSettings(num_steps=4, epsilon=0.2, tau=2)
    stop = _attack(settings, name="friendly", tau=1).stop
    slope = Slope(torch.zeros(4, 1, 1, 1), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    assert stop is not None and stop(slope, torch.arange(4)).tolist() == [False, False, False, True]


@pytest.mark.parametrize(("num_steps", "tau", "least"), [(1, 0, 2), (0, 0, 2), (3, 3, 4)])
def test_friendly_attack_that_stops_at_no_image_is_refused(
    num_steps: int, tau: int, least: int
) -> None:
    asked = AttackConfig(name="friendly", num_steps=num_steps, tau=tau)
    with pytest.raises(UserError, match=f"use attack.num_steps >= {least}, or attack.name=pgd"):
        require_purpose(asked)
    require_purpose(asked.model_copy(update={"num_steps": least}))
    require_purpose(asked.model_copy(update={"name": "pgd"}))


def test_nfgsm_adds_a_step_to_noise_of_twice_the_radius_and_keeps_the_box_alone() -> None:
    """De Jorge et al. 2022, algorithm 1."""
    model, natural = _model(), _images()
    noise = 0.1 * 2 * (torch.rand(natural.shape, generator=_generator()) * 2 - 1)
    noisy = (natural + noise).clamp(0, 1)
    expected = (noisy + 0.1 * _gradient(model, noisy, LABELS).sign()).clamp(0, 1)
    attack = _attack(name="nfgsm", epsilon=0.1)
    found = attack.run(_in_eyes_of(model), natural, Stand(attack.start(natural, _generator())))
    torch.testing.assert_close(found, expected)
    assert (found - natural).abs().max() > 0.2


@given(norm=st.sampled_from(["linf", "l2", "l1"]), epsilon=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_nfgsm_goes_no_further_than_three_times_the_radius(
    norm: str, epsilon: float, seed: int
) -> None:
    natural = _images()
    slope = torch.randn(natural.shape, generator=_generator(seed))
    attack = _attack(name="nfgsm", norm=norm, epsilon=epsilon)
    begin = Stand(attack.start(natural, _generator(seed)))
    found = attack.run(lambda images: Slope(slope, torch.eye(12), LABELS), natural, begin)
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    length = torch.linalg.vector_norm((found - natural).flatten(1), ord=order, dim=1)
    assert found.min() >= 0 and found.max() <= 1 and length.max() <= 3 * epsilon + 1e-4
