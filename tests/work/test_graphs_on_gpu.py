"""CUDA graphs come to the bits of eager steps. They have not been tried on a GPU yet."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_jobs import SMALL, Choose, differences, small_model, train_and_craft
from torch import Tensor, nn

import mpiadv
from mpiadv.models import build_model
from mpiadv.models.execution import Executor, Results, eagerly
from mpiadv.settings import AttackConfig, ModelConfig
from mpiadv.work.device import Device, make_deterministic, settings_kept
from mpiadv.work.graphs import CudaCapture, Graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

LARGE = (3, 32, 32)


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    with settings_kept():
        make_deterministic(1)
        yield


@pytest.fixture
def device() -> Device:
    return Device(torch.device("cuda", 0))


def resnet() -> nn.Module:
    config = ModelConfig(name="preact_resnet18")
    return build_model(config, num_classes=4, image_shape=LARGE, seed=0)


class Counted(CudaCapture):
    """Counts what was captured."""

    num_captured = 0

    def capture(self, function: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        captured = super().capture(function)
        self.num_captured += 1
        return captured


def as_graphs(device: Device, captures: list[Counted], told: list[str]) -> Choose:
    def choose(model: nn.Module) -> Executor:
        captures.append(Counted(device.torch))
        return Graphs(model, captures[-1], told.append)

    return choose


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize(("new_model", "shape"), [(small_model, SMALL), (resnet, LARGE)])
def test_graphs_come_to_the_bits_of_eager_steps(
    new_model: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    batch_norm: Any,
    precision: str,
    objective: str,
    device: Device,
) -> None:
    asked: dict[str, Any] = {
        "attack": AttackConfig(batch_norm=batch_norm, loss="kl" if objective == "trades" else None),
        "precision": precision,
        "objective": objective,
    }
    captures, told = list[Counted](), list[str]()
    choose = as_graphs(device, captures, told)
    graphs = train_and_craft(new_model, shape, choose, device, **asked)
    eager = train_and_craft(new_model, shape, lambda model: eagerly, device, **asked)
    assert differences(graphs, eager) == []
    assert told == []
    assert [each.num_captured for each in captures] == [1, 2]


class Reading(nn.Module):
    """Waits for the device, which no capture allows."""

    def forward(self, images: Tensor) -> Tensor:
        return images / float(images.detach().max())


def test_what_waits_for_the_device_is_refused_and_comes_to_the_same_bits(device: Device) -> None:
    def new_model() -> nn.Module:
        return small_model(Reading())

    captures, told = list[Counted](), list[str]()
    choose = as_graphs(device, captures, told)
    found = train_and_craft(new_model, SMALL, choose, device)
    expected = train_and_craft(new_model, SMALL, lambda model: eagerly, device)
    assert differences(found, expected) == []
    assert sorted(line.partition(" runs ")[0] for line in told) == [
        "the slope of an attack", "the slope of an attack", "the training gradient",
    ]  # fmt: skip
    # The device goes on as before, and captures what can be.
    test_graphs_come_to_the_bits_of_eager_steps(
        small_model, SMALL, "eval", "float32", "adversarial", device
    )


def test_replays_take_no_more_memory(device: Device) -> None:
    model = resnet().to(device.torch).requires_grad_(False)
    told: list[str] = []
    run = Graphs(model, CudaCapture(device.torch), told.append)
    images = torch.rand(8, *LARGE, device=device.torch)
    reserved = []
    for call in range(30):
        run(("logits",), lambda images: [model(images)], images + call)
        reserved.append(torch.cuda.memory_reserved(device.torch))
    assert len(set(reserved[10:])) == 1
    assert told == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_run_ends_in_the_same_hash(precision: str, tmp_path: Path) -> None:
    def trained(name: str, *words: str) -> mpiadv.TrainedRun:
        asked = ["training.num_steps=20", "evaluation.num_steps=3", "training.device=cuda"]
        words = (*asked, *words, f"training.precision={precision}", f"output={tmp_path / name}")
        return mpiadv.train(mpiadv.load_config(overrides=words))

    graphs, eager = trained("graphs", "training.cuda_graphs=true"), trained("eager")
    assert graphs.hash == eager.hash
    assert b"eager" not in mpiadv.read_log(graphs.folder).events["kind"]
