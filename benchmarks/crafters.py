"""Who crafts in crafting.py: an attacker of mpiadv, and the same attack by other libraries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.attacks import as_target
from mpiadv.comm.links import ParameterSlot, plain_memory
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings, SampleOrder, StalenessRule
from mpiadv.data import Indices
from mpiadv.data.memory import MemorySource
from mpiadv.models import FlatState, build_model, choose_format, freeze
from mpiadv.settings import AttackConfig, DataConfig, ModelConfig, Precision
from mpiadv.settings.pixels import RELATIVE_STEP_SIZE
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device
from mpiadv.work.recipe import Recipe

NUM_STEPS = 8

Build = Callable[[], nn.Module]

Craft = Callable[[int, Tensor, Tensor], Tensor]
"""From the number of a batch, its images float32 [N, C, H, W] and labels to adversarial images."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A network, and what it is attacked with: `epsilon` in pixels, of images of `shape`."""

    name: str
    shape: tuple[int, int, int]
    batch_size: int
    num_images: int
    epsilon: float
    lessons: int
    """Natural training steps."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    as_published: Build | None = None
    """The same function of the same weights in torch's own layers, where ours has others."""

    @property
    def step_size(self) -> float:
        return RELATIVE_STEP_SIZE * self.epsilon / NUM_STEPS

    def build(self) -> nn.Module:
        config = ModelConfig(name=self.name, arguments=dict(self.arguments))
        return build_model(config, num_classes=10, image_shape=self.shape, seed=0)


def _published_mnist() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )


TASKS = {
    "mnist": Task(
        name="mnist", shape=(1, 28, 28), batch_size=128, num_images=1024, epsilon=0.1,
        lessons=100, arguments={"initialization": "torch"}, as_published=_published_mnist,
    ),
    "preact_resnet18": Task(
        name="preact_resnet18", shape=(3, 32, 32), batch_size=128, num_images=256, epsilon=0.05,
        lessons=30,
    ),
}  # fmt: skip


def network(build: Build, weights: Mapping[str, Any], device: torch.device) -> nn.Module:
    """A network with these weights, frozen and in evaluation mode."""
    model = build().to(device).eval()
    model.load_state_dict(weights)
    freeze(model)
    return model


def others(task: Task, weights: Mapping[str, Any], device: torch.device) -> dict[str, Craft]:
    """The crafts of other libraries by name; prints which are not installed, and what they lack.

    They attack the network as published, and plain torch ours, too.
    """
    found: dict[str, Craft] = {}
    build = task.as_published or task.build
    for name, make in OTHERS.items():
        try:
            found[name] = make(task, network(build, weights, device))
        except ImportError as error:
            print(f"{name} is left out: {error}\n")
    if task.as_published:
        model = network(task.build, weights, device)
        found["plain torch on our layers"] = _plain_torch(task, model)
    return found


def _plain_torch(task: Task, model: nn.Module) -> Craft:
    def craft(number: int, images: Tensor, labels: Tensor) -> Tensor:
        adversarial = images + (2 * torch.rand_like(images) - 1) * task.epsilon
        adversarial = adversarial.clamp(0, 1)
        for _ in range(NUM_STEPS):
            adversarial = adversarial.detach().requires_grad_()
            loss = functional.cross_entropy(model(adversarial), labels)
            (gradient,) = torch.autograd.grad(loss, adversarial)
            moved = adversarial.detach() + task.step_size * gradient.sign()
            near = (moved - images).clamp(-task.epsilon, task.epsilon)
            adversarial = (images + near).clamp(0, 1)
        return adversarial

    return craft


def _torchattacks(task: Task, model: nn.Module) -> Craft:
    import torchattacks

    attack = torchattacks.PGD(model, task.epsilon, task.step_size, NUM_STEPS)
    return lambda number, images, labels: attack(images, labels)


def _foolbox(task: Task, model: nn.Module) -> Craft:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    device = next(model.parameters()).device
    classifier = PyTorchModel(model, bounds=(0, 1), device=device)
    attack = LinfPGD(abs_stepsize=task.step_size, steps=NUM_STEPS)
    return lambda number, images, labels: attack.run(
        classifier, images, labels, epsilon=task.epsilon
    )


def _art(task: Task, model: nn.Module) -> Craft:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    device = next(model.parameters()).device
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), task.shape, 10, clip_values=(0, 1),
        device_type="cpu" if device.type == "cpu" else "gpu",
    )  # fmt: skip
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=task.epsilon, eps_step=task.step_size, max_iter=NUM_STEPS,
        num_random_init=1, batch_size=task.batch_size, verbose=False,
    )  # fmt: skip
    return lambda number, images, labels: torch.from_numpy(
        attack.generate(images.cpu().numpy(), labels.cpu().numpy())
    ).to(device)


OTHERS: Mapping[str, Callable[[Task, nn.Module], Craft]] = {
    "plain torch": _plain_torch,
    "torchattacks": _torchattacks,
    "foolbox": _foolbox,
    "ART": _art,
}


def ours(
    task: Task, weights: Mapping[str, Any], images: Tensor, labels: Tensor, device: torch.device
) -> dict[str, Craft]:
    """An attacker of mpiadv in each precision, as it is and with another memory format."""
    source = MemorySource(images, labels)
    precisions: Sequence[Precision] = ("float32", "bfloat16")
    formats: Mapping[str, Literal["auto", "contiguous"]] = {
        "": "auto",
        ", contiguous": "contiguous",
    }
    return {
        f"mpiadv {precision}{note}": _Ours(
            task, network(task.build, weights, device), source, precision, wanted
        )
        for precision in precisions
        for note, wanted in formats.items()
    }


class _Ours:
    """The crafter of an attacker."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        source: MemorySource,
        precision: Precision,
        wanted: Literal["auto", "contiguous"],
    ) -> None:
        device = Device(source.images.device)
        state = FlatState(model)
        self._parameters = ParameterSlot(state.num_bytes, plain_memory)
        state.pack(torch.from_numpy(self._parameters.values))
        memory_format = choose_format(
            wanted, task.build, task.shape, device=device.torch, precision=precision
        )
        as_target(model, task.shape, memory_format=memory_format, precision=precision)
        recipe = Recipe(
            seed=0,
            rule=StalenessRule(max_staleness=0, final_staleness=0, publish_every=1),
            order=_InOrder(seed=0, num_samples=source.num_samples, batch_size=task.batch_size),
            data=DataConfig(),
            attack=AttackConfig(epsilon=task.epsilon, num_steps=NUM_STEPS),
            precision=precision,
            num_clean=0,
            natural_every=0,
            keep_natural=False,
            num_classes=10,
            keep_notes=False,
            draw_nearby=False,
            wire_dtype="float32",
        )
        self._settings = AttackSettings(num_steps=NUM_STEPS, epsilon=task.epsilon)
        self._crafter = TorchCrafter(recipe, model, source, device)

    def __call__(self, number: int, images: Tensor, labels: Tensor) -> Tensor:
        self._crafter.start(number, self._settings)
        for step in range(NUM_STEPS):
            self._crafter.run(AttackStep(ticket=number, step=step, version=0), self._parameters)
        return self._crafter.finish(number)[0].images


class _InOrder(SampleOrder):
    """Ticket n has batch n of the samples as they lie."""

    def indices(self, ticket: int) -> Indices:
        return np.arange(ticket * self.batch_size, (ticket + 1) * self.batch_size)
