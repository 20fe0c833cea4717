"""What a model remembers outside of its parameters and buffers: nobody but itself will know it.

Attackers, evaluations and resumed runs have a model's parameters and buffers alone.
"""

import itertools
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Attribute = tuple[str, str]
"""The name of a layer in its model, empty for the model itself, and of its attribute."""

_OF_TORCH = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST, _LONGEST = 4, 1000
"""Further down, or on, nobody looks: what is compared are a few numbers, not a cache."""


def plain_state(model: nn.Module) -> dict[Attribute, object]:
    """What the attributes of each layer hold, as far as it can be compared later.

    Numbers, texts, arrays, generators, tensors that are neither parameters nor buffers and come
    from no forward pass with gradients; also inside of lists, mappings and objects.
    """
    return {
        (name, attribute): _comparable(value, _DEEPEST)
        for name, layer in model.named_modules()
        for attribute, value in vars(layer).items()
        if attribute not in _OF_TORCH
    }


def changed_attributes(
    before: Mapping[Attribute, object], after: Mapping[Attribute, object]
) -> list[Attribute]:
    """Attributes that were there before, and hold something else now."""
    return [key for key, value in after.items() if key in before and before[key] != value]


def attribute_text(attribute: Attribute) -> str:
    """`'block.norm.calls'`."""
    return repr(".".join(part for part in attribute if part))


def _comparable(value: Any, depth: int) -> object:
    """The same object for the same contents; a type where they cannot be told."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, itertools.count):
        return repr(value)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    return _of_container(value, depth - 1) if depth else type(value)


def _of_tensor(tensor: Tensor) -> object:
    if tensor.grad_fn is not None or tensor.layout is not torch.strided:
        return Tensor
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return str(tensor.dtype), tuple(tensor.shape), flat.numpy().tobytes()


def _of_container(value: Any, depth: int) -> object:
    if isinstance(value, list | tuple | deque):
        items = list(value)
    elif isinstance(value, Mapping):
        items = list(itertools.chain.from_iterable(value.items()))
    elif isinstance(value, nn.Module | type) or callable(value) or not hasattr(value, "__dict__"):
        return type(value)
    else:
        items = list(itertools.chain.from_iterable(vars(value).items()))
    parts = tuple(_comparable(item, depth) for item in items[:_LONGEST])
    return type(value), len(items), parts
