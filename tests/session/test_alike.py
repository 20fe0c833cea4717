"""A model that is not the same on all ranks is found before anything is written."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpiadv.process.errors import UserError
from mpiadv.session import setup as session
from mpiadv.session.alike import appearance, differences

SHAPE = (1, 8, 8)
NAMES = ["rank 0", "rank 1", "rank 2"]


class Scaled(nn.Linear):
    """A network that a rank can make another one, without another parameter."""

    def __init__(self, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        super().__init__(64, 10)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flatten(1)) * self.scale


def layers(*names: str) -> nn.Module:
    """Layers of the same shapes; those that a set gives come in any order."""
    parts = {name: nn.Linear(64, 64) for name in names}
    return nn.Sequential(nn.Flatten(), nn.ModuleDict(parts)["a"], Held(parts))


class Held(nn.Module):
    """Keeps layers, and lets images through."""

    def __init__(self, parts: dict[str, nn.Linear]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, images: Tensor) -> Tensor:
        return images


def look(model: nn.Module) -> str:
    return appearance(model, SHAPE, torch.device("cpu"))


ONE = Scaled()
SAME_FUNCTION = {
    "the_same": Scaled(),
    "rounded_otherwise": Scaled(1.001),
    "lost": None,
}


@pytest.mark.parametrize("other", SAME_FUNCTION.values(), ids=SAME_FUNCTION)
def test_model_that_is_the_same_everywhere_is_let_through(other: nn.Module | None) -> None:
    assert differences([look(ONE), "" if other is None else look(other), look(ONE)], NAMES) == []


def test_model_that_goes_by_its_rank_is_told_of() -> None:
    (line,) = differences([look(ONE), look(ONE), look(Scaled(2.0))], NAMES)
    assert line.startswith("model Scaled gives other logits for the same images on rank 2 than on")


OTHER_PARAMETERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another_order": (lambda: layers("a", "c", "b"), "'2.parts.c.weight torch.float32 "),
    "one_more": (lambda: layers("a", "b", "c", "d"), "8 parameters and buffers, and rank 0 6"),
}


@pytest.mark.parametrize(
    ("build", "told"),
    [pytest.param(*case, id=name) for name, case in OTHER_PARAMETERS.items()],
)
def test_model_of_other_parameters_is_refused(build: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(UserError, match="model Sequential: rank 1 has ") as caught:
        differences([look(layers("a", "b", "c")), look(build())], NAMES)
    assert told in str(caught.value)


def test_ranks_compare_their_models_before_training() -> None:
    def gather(text: str) -> list[str]:
        return [text, look(Scaled(2.0)) if text else text]

    world: Any = SimpleNamespace(size=2, is_trainer=True, gather=gather)
    world.roster = SimpleNamespace(name=NAMES.__getitem__)
    world.at_work = lambda: torch.no_grad()
    setup: Any = SimpleNamespace(
        world=world,
        data=SimpleNamespace(image_shape=SHAPE),
        device=SimpleNamespace(torch=torch.device("cpu")),
        new_model=Scaled,
    )
    assert len(session._unlike(setup)) == 1
    world.size = 1
    assert session._unlike(setup) == []
