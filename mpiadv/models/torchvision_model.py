"""The classifiers of torchvision by name, never with downloaded weights. Knows no data set."""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from mpiadv.process.errors import UserError

PREFIX = "torchvision:"

# In training these two would return three sets of logits, which no objective here takes.
_ONE_OUTPUT = {"aux_logits": False, "init_weights": True}
_EXTRA = {"googlenet": _ONE_OUTPUT, "inception_v3": _ONE_OUTPUT}


def torchvision_builder(name: str) -> Callable[..., nn.Module]:
    """The function that builds `torchvision:NAME`.

    Raises:
        UserError: torchvision has no classifier of that name; the line names the nearest.
    """
    from torchvision import models

    known = models.list_models(module=models)
    wanted = name.removeprefix(PREFIX)
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"unknown model {name!r}: did you mean '{PREFIX}{nearest}'? torchvision has "
            f"{len(known)} classifiers, see torchvision.models.list_models()"
        )

    def build(*, num_classes: int, image_shape: tuple[int, int, int], **arguments: Any) -> Any:
        settings = {**_EXTRA.get(wanted, {}), **arguments}
        return models.get_model(wanted, weights=None, num_classes=num_classes, **settings)

    return build
