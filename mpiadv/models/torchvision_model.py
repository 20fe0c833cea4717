"""The classifiers of torchvision by name, never with downloaded weights. Knows no data set."""

from collections.abc import Callable
from typing import Any

from torch import nn

from mpiadv.registry import find_registered

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

    names = {f"{PREFIX}{known}": known for known in models.list_models(module=models)}
    builders = {full: _builder(models, known) for full, known in names.items()}
    return find_registered("model", name, builders)


def _builder(models: Any, name: str) -> Callable[..., nn.Module]:
    def build(*, num_classes: int, image_shape: tuple[int, int, int], **arguments: Any) -> Any:
        settings = {**_EXTRA.get(name, {}), **arguments}
        return models.get_model(name, weights=None, num_classes=num_classes, **settings)

    return build
