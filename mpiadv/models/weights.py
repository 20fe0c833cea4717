"""Weights as people keep them: found inside their file, and brought to the names of a model.

Knows no file and no particular model.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mpiadv.process.errors import abridged

PLACES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
"""Where training programs put the state dict of the network, beside that of the optimiser."""

_COMPILED = "_orig_mod."
_FEW = 3


def unwrapped(contents: object) -> tuple[dict[str, Any] | None, str]:
    """The state dict in what a file holds, and the places on the way to it, as `['model']`.

    None where there is none.
    """
    if not isinstance(contents, Mapping) or not all(isinstance(key, str) for key in contents):
        return None, ""
    if not any(isinstance(value, Mapping) for value in contents.values()):
        return (dict(contents), "") if _has_tensors(contents) or not contents else (None, "")
    for place in PLACES:
        found, further = unwrapped(contents.get(place))
        if found:
            return found, f"[{place!r}]{further}"
    return (dict(contents), "") if _has_tensors(contents) else (None, "")


def renamed(weights: Mapping[str, Any], model: nn.Module) -> tuple[dict[str, Any], str]:
    """The weights by the model's names, and what was left out of theirs; empty where they fit.

    Where no prefix makes them fit they are what they were.
    """
    wanted = set(model.state_dict())
    parts = next(iter(weights), "").split(".")
    prefixes = ("".join(f"{part}." for part in parts[:length]) for length in range(1, len(parts)))
    # torch.compile puts its own wherever it was called; DataParallel "module." in front of all.
    for left_out in ("", _COMPILED, *prefixes):
        old = left_out if left_out == _COMPILED else f"^{re.escape(left_out)}"
        names = [re.sub(old, "", name) for name in weights]
        if set(names) == wanted:
            return dict(zip(names, weights.values(), strict=True)), left_out
    return dict(weights), ""


def misfit_text(weights: Mapping[str, Any], model: nn.Module) -> str:
    """Why weights do not fit a model: the first few names, or the first shape that differs."""
    ours = model.state_dict()
    missing = [name for name in ours if name not in weights]
    unknown = [name for name in weights if name not in ours]
    reasons = [
        f"{verb} {abridged(list(map(repr, names)), _FEW)}"
        for verb, names in (("it lacks", missing), ("the model has no", unknown))
        if names
    ]
    if reasons:
        return ", ".join(reasons)
    for name, tensor in ours.items():
        theirs = weights[name]
        if not isinstance(theirs, Tensor):
            return f"its {name!r} is no tensor"
        if isinstance(tensor, Tensor) and tensor.shape != theirs.shape:
            return f"its {name!r} is {list(theirs.shape)}, the model's {list(tensor.shape)}"
    return "it holds what the model does not take"


def unusable_text(model: nn.Module) -> str:
    """Where parameters or buffers are no numbers, as `'a.weight' (7 of 10 values)`; or nothing.

    Infinite buffers are left alone: masks are made of them.
    """
    kinds = (
        (model.named_parameters(), torch.isfinite),
        (model.named_buffers(), lambda tensor: ~tensor.isnan()),
    )
    for tensors, is_usable in kinds:
        for name, tensor in tensors:
            count = tensor.numel() - int(is_usable(tensor.detach()).sum())
            if count:
                return f"{name!r} ({count:,} of {tensor.numel():,} values)"
    return ""


def _has_tensors(contents: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in contents.values())
