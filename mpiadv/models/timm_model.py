"""The classifiers of timm by name, never with downloaded weights. Knows no data set."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from mpiadv.process.errors import UserError

PREFIX = "timm:"


def timm_builder(name: str) -> Callable[..., nn.Module]:
    """The function that builds `timm:NAME`, for the images' number of channels.

    Raises:
        UserError: timm is not installed, or has no model of that name; the line names the nearest.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"model {name!r} needs the package timm: pip install timm") from None
    known, wanted = timm.list_models(), name.removeprefix(PREFIX)
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"unknown model {name!r}: did you mean '{PREFIX}{nearest}'? timm has {len(known):,} "
            "models, see timm.list_models()"
        )

    def build(*, num_classes: int, image_shape: tuple[int, int, int], **arguments: Any) -> Any:
        return timm.create_model(
            wanted, pretrained=False, num_classes=num_classes, in_chans=image_shape[0], **arguments
        )

    return build
