"""Crafting and training of a few tickets, on any device and by any `Executor`, for tests of graphs.

And what stands in for a GPU that captures.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ordinary_steps import ordinary_step
from recipes import recipe_of
from torch import Tensor, nn
from torch.optim import SGD

from mpiadv.comm.links import ParameterSlot
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.methods.objective import Batch
from mpiadv.methods.objectives import make_objective
from mpiadv.models import fingerprint
from mpiadv.models.execution import Executor, Results
from mpiadv.models.modes import buffers_kept
from mpiadv.settings import AttackConfig, ObjectiveConfig, TrainingConfig
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device
from mpiadv.work.learn import TorchLearner
from mpiadv.work.recipe import Recipe

BATCH_SIZE, NUM_CLEAN, NUM_TICKETS = 8, 2, 6
SMALL = (2, 6, 6)
"""The shape of images that `small_model` takes."""

SETTINGS = AttackSettings(num_steps=3, epsilon=0.1)

Choose = Callable[[nn.Module], Executor]
"""How functions on a model are to be run."""


class StandIn:
    """A `Capture` on the CPU: it computes nothing until launched, and then in the same places.

    What a function leaves in `.grad` and in buffers while it is captured is as before, as are the
    `.grad` of parameters when it is launched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._is_aside = False
        self.num_captured = self.num_launched = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._is_aside = True
        yield
        self._is_aside = False

    def capture(self, function: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        assert self._is_aside
        self.num_captured += 1
        with buffers_kept(self._model), self._gradients_kept():
            outputs = [None if each is None else torch.zeros_like(each) for each in function()]

        def launch() -> None:
            self.num_launched += 1
            with self._gradients_kept():
                for place, value in zip(outputs, function(), strict=True):
                    if place is not None and value is not None:
                        place.copy_(value)

        return outputs, launch

    @contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        before = [parameter.grad for parameter in self._model.parameters()]
        yield
        for parameter, gradient in zip(self._model.parameters(), before, strict=True):
            parameter.grad = gradient


class Pictures:
    """Sixteen images, each of its own class out of four."""

    num_samples = 16

    def __init__(self, shape: tuple[int, int, int]) -> None:
        generator = torch.Generator().manual_seed(1)
        self._images = torch.rand(self.num_samples, *shape, generator=generator)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._images[indices], torch.as_tensor(indices) % 4

    def prefetch(self, indices: Tensor, *, urgency: int = 0) -> None:
        pass

    def forget(self, indices: Tensor) -> None:
        pass


def small_model(*layers: nn.Module) -> nn.Module:
    """Convolutions and batch norm, from images of `SMALL` to four classes; `layers` come first."""
    torch.manual_seed(0)
    return nn.Sequential(
        *layers, nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def train_and_craft(
    new_model: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    choose: Choose,
    device: Device,
    *,
    attack: AttackConfig | None = None,
    objective: str = "adversarial",
    precision: Any = "float32",
) -> list[Any]:
    """What a few tickets come to: images, losses, and in the end the hash of the trained model.

    Each is attacked on the parameters of its own step; the trainer takes the last attack step.
    """
    rule = StalenessRule(max_staleness=0, final_staleness=0, publish_every=1, trainer_steps=1)
    recipe = recipe_of(
        num_samples=Pictures.num_samples, batch_size=BATCH_SIZE, num_clean=NUM_CLEAN, rule=rule,
        keep_natural=True, attack=attack or AttackConfig(), precision=precision,
    )  # fmt: skip
    attacked, trained = (new_model().to(device.torch) for _ in range(2))
    crafter = TorchCrafter(recipe, attacked, Pictures(shape), device, choose(attacked))
    learner = _learner(recipe, trained, choose(trained), device, objective)
    slot, told = ParameterSlot(learner.parameter_bytes, device.allocate), list[Any]()
    for ticket in range(NUM_TICKETS):
        is_there = learner.snapshot(slot.values)
        while not is_there():
            pass
        batch = _craft(crafter, ticket, slot)
        learner.train(ticket, batch, SETTINGS, lambda: None)
        told += [batch.images.cpu(), learner.told()]
        learner.complete()
    return [*told, fingerprint(trained)]


def _craft(crafter: TorchCrafter, ticket: int, slot: ParameterSlot) -> Batch:
    crafter.start(ticket, SETTINGS)
    for step in range(SETTINGS.num_steps - 1):
        crafter.run(AttackStep(ticket=ticket, step=step, version=ticket), slot)
    return crafter.finish(ticket)[0]


def _learner(
    recipe: Recipe, model: nn.Module, execute: Executor, device: Device, objective: str
) -> TorchLearner:
    step = ordinary_step(
        model,
        SGD(model.parameters(), lr=0.1, momentum=0.9),
        objective=make_objective(ObjectiveConfig(name=objective)),
        config=TrainingConfig(precision=recipe.precision),
        num_clean=NUM_CLEAN,
        execute=execute,
    )
    return TorchLearner(recipe, step, device, execute=execute)


def differences(some: list[Any], others: list[Any]) -> list[int]:
    """Where what `train_and_craft` tells is not the same, bit by bit."""
    pairs = enumerate(zip(some, others, strict=True))
    return [number for number, (one, other) in pairs if not _is_same(one, other)]


def _is_same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
