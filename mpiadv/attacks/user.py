"""Attacks of somebody's own: whatever goes wrong in their code is told in one line."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mpiadv.attacks.attack import STARTS, Attack, Stand, nearest, steepest
from mpiadv.attacks.climb import Slope
from mpiadv.attacks.losses import LOSSES, AttackLoss
from mpiadv.attacks.norms import NORMS
from mpiadv.process.errors import UserError, shown, user_code
from mpiadv.settings.registry import import_dotted

_HOLES = {
    "start_at": (1, torch.float32),
    "step": (2, torch.float32),
    "projection": (1, torch.float32),
    "stop": (1, torch.bool),
}
"""Of each part of an attack: which of its arguments its result is shaped like, and its type."""

_SUM = None, torch.float32
"""Of a loss: a single number."""

_OURS = (None, steepest, nearest, *STARTS.values())


def _is_length(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_length(value)


def _is_optional(value: object) -> bool:
    return value is None or callable(value)


def _is_loss(value: object) -> bool:
    return value is None or (
        isinstance(value, AttackLoss) and isinstance(value.name, str) and callable(value.function)
    )


_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "norm": (lambda value: isinstance(value, str) and value in NORMS, f"one of {', '.join(NORMS)}"),
    "epsilon": (_is_length, "a number of pixels, at least 0"),
    "step_size": (_is_length, "a number of pixels, at least 0"),
    "num_steps": (_is_count, "a whole number"),
    "loss": (_is_loss, f"{', '.join(LOSSES)}, None, or an AttackLoss of a name and a function"),
    "step": (callable, "a function"),
    "projection": (callable, "a function"),
    "start_at": (_is_optional, "a function, or None"),
    "stop": (_is_optional, "a function, or None"),
}
"""Of each part of an attack: whether a value is of its kind, and which that is."""


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
        loss: Any = attack.loss
        if isinstance(loss, str) and loss in LOSSES:
            attack = dataclasses.replace(attack, loss=LOSSES[loss])
        _require_kinds(f"attack {name!r}", attack)
        _require_as_asked(f"attack {name!r}", attack, asked)
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
    next(attack.steps(look, images, Stand(start)), None)
    loss, logits = attack.loss, look(images).logits.requires_grad_()
    target = logits.detach() if loss and loss.needs_natural else labels
    if loss and not loss.function(logits, target).requires_grad:
        raise UserError(f"loss {loss.name!r} does not depend on the logits: nothing to climb")


def _require_kinds(place: str, attack: Attack) -> None:
    for key, (is_right, expected) in _EXPECTED.items():
        value = getattr(attack, key)
        if not is_right(value):
            raise UserError(f"{place}: {key}={shown(value)}: expected {expected}")


def _require_as_asked(place: str, attack: Attack, asked: Mapping[str, Any]) -> None:
    """Refuse another ball or number of steps: the log, bounds and versions go by what was asked."""
    for key in ("norm", "epsilon", "num_steps"):
        if getattr(attack, key) != asked[key]:
            raise UserError(
                f"{place}: {key}={shown(getattr(attack, key))}: expected {asked[key]}, as it was "
                f"called with: set attack.{key} instead"
            )


def _guarded(place: str, attack: Attack) -> Attack:
    """The attack, its parts checked whenever they are used."""
    guarded: dict[str, Any] = {
        hole: _checked(f"{place}: {hole}", getattr(attack, hole), *kind)
        for hole, kind in _HOLES.items()
        if getattr(attack, hole) not in _OURS
    }
    loss = attack.loss
    if loss is not None and loss not in LOSSES.values():
        function = _checked(f"{place}: loss {loss.name!r}", loss.function, *_SUM)
        guarded["loss"] = dataclasses.replace(loss, function=function)
    return dataclasses.replace(attack, **guarded)


def _checked(
    place: str, function: Callable[..., Tensor], like: int | None, dtype: torch.dtype
) -> Callable[..., Tensor]:
    def call(*given: Any) -> Tensor:
        tensors = [each for each in given if isinstance(each, Tensor)]
        before = [tensor._version for tensor in tensors]
        with user_code(f"{place} fails"):
            found = function(*given)
        if before != [tensor._version for tensor in tensors]:
            raise UserError(f"{place} writes into what it is given: it is to return something new")
        shape = torch.Size() if like is None else given[like].shape
        told = (
            _kind(found.shape, found.dtype) if isinstance(found, Tensor) else type(found).__name__
        )
        if told != _kind(shape, dtype):
            raise UserError(f"{place} returned {told}, expected {_kind(shape, dtype)}")
        return found

    return call


def _kind(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"a tensor {str(dtype).removeprefix('torch.')} {list(shape)}"
