"""What training and attacks get over, but bits or figures suffer from: a line of warning for each.

Knows no data and no training: it is given ways to run a model.
"""

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from mpiadv.models.check import name_of
from mpiadv.models.flat import FlatState, named_tensors
from mpiadv.models.modes import device_of
from mpiadv.process.errors import abridged

Logits = Callable[[nn.Module], Tensor]
"""What a model makes of the same images, and of the same random numbers, each time."""

_OF_TORCH = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST, _LONGEST = 6, 1000
"""Further down, or on, nobody looks: what is compared are a few numbers, not a cache."""


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same, NaN being equal to NaN."""
    return torch.equal(one, other) or bool(torch.isclose(one, other, 0, 0, equal_nan=True).all())


def built_unlike(model: nn.Module, other: nn.Module) -> list[str]:
    """Whether two models of one seed are not the same."""
    for (name, ours), (_, theirs) in zip(named_tensors(model), named_tensors(other), strict=True):
        if not same(ours, theirs):
            return [
                f"model {name_of(model)} begins with another {name!r} in every call of its "
                "function, so that bits differ from run to run: draw from torch's global stream, "
                "or numpy's or Python's, which are seeded, and not from a generator of its own"
            ]
    return []


def randomness(model: nn.Module, logits: Callable[[int], Tensor]) -> list[str]:
    """Whether it makes something else of the same images each time; `logits` are those of a seed.

    Athalye et al. 2018, section 5.3: an attack has to average gradients over what the network
    draws, or it climbs mere chance. No attack here does.
    """
    first, again, otherwise = logits(1), logits(1), logits(2)
    is_seeded = same(first, again)
    if is_seeded and same(first, otherwise):
        return []
    unseeded = (
        ". Nor does the seed decide it: it counts its passes, or draws from a generator of its "
        "own, so that bits depend on who computes: draw from torch's global stream, or numpy's or "
        "Python's"
    )
    return [
        f"model {name_of(model)} is random: it gives the same images other logits on every pass. "
        f"No attack here averages over that, so figures flatter it{'' if is_seeded else unseeded}"
    ]


def plain_state(model: nn.Module) -> dict[str, object]:
    """What the attributes of each layer hold, as far as it can be compared later.

    Numbers, texts, arrays, tensors that are neither parameters nor buffers and come from no forward
    pass with gradients; also inside of lists, tuples and dictionaries.
    """
    return {
        f"{name}.{attribute}".lstrip("."): _comparable(value, _DEEPEST)
        for name, layer in model.named_modules()
        for attribute, value in vars(layer).items()
        if attribute not in _OF_TORCH
    }


def hidden_state(
    model: nn.Module, other: nn.Module, before: Mapping[str, object], logits: Logits
) -> list[str]:
    """Whether a trained model remembers something that is neither parameter nor buffer.

    `before` is its `plain_state` of before a training step, `other` a model of its kind.
    """
    name = name_of(model)
    after = plain_state(model)
    changed = [key for key, value in after.items() if key in before and before[key] != value]
    if changed:
        told = abridged([repr(key) for key in changed], 3)
        return [
            f"model {name}: {told} changes in training and is no buffer, so that attackers, "
            "evaluations and a resumed run do not know it, and bits may depend on who computes: "
            "register it as a buffer (register_buffer)"
        ]
    state = FlatState(model)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8, device=device_of(model))
    state.pack(flat)
    FlatState(other).unpack(flat)
    ours, again, theirs = logits(model), logits(model), logits(other)
    if same(ours, theirs) or not same(ours, again):
        return []
    return [
        f"model {name}: after a training step a copy with the same parameters and buffers gives "
        "other logits, as attackers, evaluations and a resumed run would get: register as a buffer "
        "(register_buffer) whatever else training changes"
    ]


def _comparable(value: object, depth: int) -> object:
    """The same object for the same contents; a type where they cannot be told."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor) and value.grad_fn is None and value.layout is torch.strided:
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return value.dtype, value.shape, flat.numpy().tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype, value.shape, value.tobytes()
    if depth and isinstance(value, list | tuple | dict):
        items = islice(value.items() if isinstance(value, dict) else value, _LONGEST)
        return type(value), len(value), [_comparable(item, depth - 1) for item in items]
    return type(value)
