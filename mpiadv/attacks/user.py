"""Attacks of somebody's own: whatever goes wrong in their code is told in one line."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mpiadv.attacks.attack import STARTS, Attack, nearest, steepest
from mpiadv.attacks.climb import Slope
from mpiadv.attacks.losses import LOSSES
from mpiadv.attacks.norms import NORMS
from mpiadv.process.errors import UserError, user_code
from mpiadv.settings.registry import import_dotted

_HOLES = {
    "start_at": (1, torch.float32),
    "step": (2, torch.float32),
    "projection": (1, torch.float32),
    "stop": (1, torch.bool),
}
"""Of each part of an attack: which of its arguments its result is shaped like, and its type."""

_OURS = (steepest, nearest, *STARTS.values())


def users_attack(name: str, arguments: Mapping[str, Any]) -> Callable[..., Attack]:
    """The function `my_package.my_module:function` as one that makes attacks.

    It is called with `norm`, `epsilon`, `num_steps`, `step_size` and `arguments`, all by name.

    Raises:
        UserError: there is none; also from the attack that it makes, where that fails.
    """
    function = import_dotted("attack", name)

    def make(**asked: Any) -> Attack:
        with user_code(f"attack {name!r} cannot be made with {asked | dict(arguments)}"):
            attack = function(**asked, **arguments)
        if not isinstance(attack, Attack):
            raise UserError(
                f"attack {name!r} returned {type(attack).__name__}, expected a "
                "mpiadv.attacks.Attack"
            )
        _require_numbers(f"attack {name!r}", attack)
        return _guarded(f"attack {name!r}", attack)

    return make


def rehearse(attack: Attack, images: Tensor, labels: Tensor, num_classes: int) -> None:
    """Try every part of an attack on a few images float32 [N, C, H, W], their slopes drawn by lot.

    Raises:
        UserError: a part of somebody's own fails, or returns what is no result.
    """
    generator = torch.Generator(images.device).manual_seed(0)

    def look(at: Tensor) -> Slope:
        gradient, logits = (
            torch.randn(shape, generator=generator, device=images.device)
            for shape in (at.shape, (len(at), num_classes))
        )
        return Slope(gradient, logits, labels)

    start = attack.start(images, generator)
    next(attack.steps(look, images, start), None)
    if attack.loss is not None:
        logits = look(images).logits.requires_grad_()
        attack.loss.function(logits, logits.detach() if attack.loss.needs_natural else labels)


def _require_numbers(place: str, attack: Attack) -> None:
    numbers = {"epsilon": attack.epsilon, "step_size": attack.step_size}
    for key, value in numbers.items():
        if not (isinstance(value, int | float) and 0 <= value < float("inf")):
            raise UserError(f"{place}: {key}={value!r}: expected a number of pixels, at least 0")
    if not isinstance(attack.num_steps, int) or attack.num_steps < 0:
        raise UserError(f"{place}: num_steps={attack.num_steps!r}: expected a whole number")
    if attack.norm not in NORMS:
        raise UserError(f"{place}: norm={attack.norm!r}: expected one of {', '.join(NORMS)}")


def _guarded(place: str, attack: Attack) -> Attack:
    """The attack, its parts checked whenever they are used."""
    parts = {hole: getattr(attack, hole) for hole in _HOLES}
    guarded: dict[str, Any] = {
        hole: _checked(f"{place}: {hole}", part, *_HOLES[hole])
        for hole, part in parts.items()
        if part is not None and part not in _OURS
    }
    loss = attack.loss
    if loss is not None and loss not in LOSSES.values():
        function = _summing(f"{place}: loss {loss.name!r}", loss.function)
        guarded["loss"] = dataclasses.replace(loss, function=function)
    return dataclasses.replace(attack, **guarded)


def _checked(
    place: str, function: Callable[..., Tensor], like: int, dtype: torch.dtype
) -> Callable[..., Tensor]:
    def call(*given: Any) -> Tensor:
        with user_code(f"{place} fails"):
            found = function(*given)
        _require_tensor(place, found, given[like].shape, dtype)
        return found

    return call


def _summing(
    place: str, function: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    def call(logits: Tensor, target: Tensor) -> Tensor:
        with user_code(f"{place} fails"):
            total = function(logits, target)
        _require_tensor(place, total, torch.Size(), torch.float32)
        if not total.requires_grad:
            raise UserError(f"{place} does not depend on the logits: there is nothing to climb")
        return total

    return call


def _require_tensor(place: str, found: object, shape: torch.Size, dtype: torch.dtype) -> None:
    expected = f"expected a tensor {str(dtype).removeprefix('torch.')} {list(shape)}"
    if not isinstance(found, Tensor):
        raise UserError(f"{place} returned {type(found).__name__}, {expected}")
    if (found.shape, found.dtype) != (shape, dtype):
        told = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
        raise UserError(f"{place} returned a tensor {told}, {expected}")
