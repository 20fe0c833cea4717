"""Small networks with a forward pass of any kind, and what their rehearsal says of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.methods.objectives import make_objective
from mpiadv.session.rehearsal import Rehearsal, Sample
from mpiadv.settings import ObjectiveConfig, Precision

SHAPE, NUM_CLASSES = (1, 8, 8), 10


class Net(nn.Module):
    """Two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(16, NUM_CLASSES)

    def forward(self, images: Tensor) -> Any:
        logits: Tensor = self.second(F.relu(self.first(images.flatten(1))))
        return logits


class WithExtraState(Net):
    def get_extra_state(self) -> dict[str, int]:
        return {"passes": 0}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def forward_of(function: Callable[[Any, Tensor], Any], **attributes: Any) -> type[Net]:
    """A network whose forward pass is `function(network, images)`."""
    return type("Net", (Net,), {"forward": function, **attributes})


def plain(net: Net, images: Tensor) -> Tensor:
    return Net.forward(net, images)  # type: ignore[no-any-return]


def rehearsed(build: Callable[[], nn.Module], **changes: Any) -> list[str]:
    """The warnings about a model."""
    precision: Precision = changes.pop("precision", "float32")

    def sample(count: int) -> Sample:
        images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(count) % NUM_CLASSES
        return Sample(images=images, labels=labels, num_classes=NUM_CLASSES, precision=precision)

    def seeded() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build()

    settings = {"batch_size": 16, "num_attacked": 16, "trains_under_attack": False, **changes}
    objective = make_objective(ObjectiveConfig())
    return Rehearsal(build=seeded, sample=sample, objective=objective, **settings).run()


def sequential(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(layer() for layer in layers))


def noise_of(draw: Callable[[], Any]) -> type[Net]:
    return forward_of(lambda net, x: plain(net, x + 0.1 * float(draw())))
