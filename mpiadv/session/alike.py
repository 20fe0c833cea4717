"""Whether all ranks built one model. Knows no data and no training.

Code that goes by a rank, a host or an environment, that takes its layers from a set, or that lies
on a node in an older copy, gives attackers another network than the one that is trained.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mpiadv.models.check import ImageShape, name_of
from mpiadv.models.modes import evaluation_mode
from mpiadv.models.random_streams import seed_streams, streams_kept
from mpiadv.process.errors import UserError, user_code

_FEW = 2
_MOST_LOGITS = 64
_SEED = 1
_NOTICEABLE = 0.05
"""Of the largest logit: more than rounding on another processor makes of it."""


def appearance(model: nn.Module, image_shape: ImageShape, device: torch.device) -> str:
    """What a fresh model looks like, to be compared by `differences`: it has other bits elsewhere.

    Raises:
        UserError: it fails.
    """
    images = torch.rand(_FEW, *image_shape, generator=torch.Generator().manual_seed(_SEED))
    with (
        streams_kept(device),
        user_code(f"model {name_of(model)}, given random images, fails"),
        evaluation_mode(model),
        torch.no_grad(),
    ):
        seed_streams(_SEED, device)
        logits = model(images.to(device)).double().flatten()[:_MOST_LOGITS].tolist()
    tensors = [*model.named_parameters(), *model.named_buffers()]
    layout = [f"{name} {tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors]
    return json.dumps({"name": name_of(model), "layout": layout, "logits": logits})


def differences(everywhere: Sequence[str], names: Sequence[str]) -> list[str]:
    """What to warn of, given how the model looks on each rank, empty where it is lost, and names.

    Raises:
        UserError: a rank has other parameters or buffers, or others of them first.
    """
    ours = json.loads(everywhere[0])
    for rank, text in enumerate(everywhere):
        theirs = json.loads(text) if text else ours
        if theirs["layout"] != ours["layout"]:
            raise UserError(
                f"model {ours['name']}: {names[rank]} has {_first_other(theirs, ours)}: all need "
                "the same ones in the same order, whatever the rank: a set has no order, and code "
                "may be another copy there"
            )
        if not _is_near(theirs["logits"], ours["logits"]):
            return [
                f"model {ours['name']} gives other logits for the same images on {names[rank]} "
                f"than on {names[0]}, so that bits and figures depend on who computes: draw from "
                "torch's global stream, go by no rank or host, and have the same code everywhere"
            ]
    return []


def _first_other(theirs: Any, ours: Any) -> str:
    pairs = zip(theirs["layout"], ours["layout"], strict=False)
    for its, own in pairs:
        if its != own:
            return f"{its!r} where rank 0 has {own!r}"
    return f"{len(theirs['layout'])} parameters and buffers, and rank 0 {len(ours['layout'])}"


def _is_near(theirs: list[float], ours: list[float]) -> bool:
    largest = max(map(abs, ours), default=0.0)
    return len(theirs) == len(ours) and all(
        abs(its - own) <= _NOTICEABLE * largest for its, own in zip(theirs, ours, strict=True)
    )
