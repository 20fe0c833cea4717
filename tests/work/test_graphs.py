"""Functions as graphs, with what stands in for a GPU: same bits, or as without, and told."""

import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_jobs import SMALL, StandIn, differences, small_model, train_and_craft
from ordinary_steps import ordinary_step
from torch import Tensor, nn

import mpiadv
from mpiadv.attacks import LOSSES, Climb
from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.models import fingerprint
from mpiadv.models.execution import Executor, Results, eagerly
from mpiadv.session import setup
from mpiadv.settings import AttackConfig
from mpiadv.work.device import Device
from mpiadv.work.graphs import MOST_GRAPHS, WARM_UP, Graphs, choose_executor

CPU = Device(torch.device("cpu"))
NAME = ("a sum",)
WORDS = (
    "model.name=small_models:batch_norm", "training.num_steps=12", "staleness.trainer_steps=1",
    "attack.num_steps=3", "evaluation.num_steps=1", "evaluation.every_steps=0",
    "training.device=cpu",
)  # fmt: skip
"""A run whose network has dropout, which attacks do not see."""

NO_ATTACK = AttackSettings(num_steps=0, epsilon=0.0)


class Bench:
    """Graphs of a model, and what they told."""

    def __init__(
        self,
        model: nn.Module | None = None,
        capture: type[StandIn] = StandIn,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model or small_model()
        self.capture = capture(self.model)
        self.told: list[str] = []
        self.execute = Graphs(self.model, self.capture, tell or self.told.append)


def summed(images: Tensor) -> Results:
    return [images.sum(dim=0), None]


def numbers(first: float, count: int = 4) -> Tensor:
    return torch.arange(count, dtype=torch.float32)[None] + first


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_crafting_and_training_come_to_the_same_bits(
    batch_norm: Any, precision: str, objective: str
) -> None:
    benches: list[Bench] = []

    def as_graphs(model: nn.Module) -> Executor:
        benches.append(Bench(model))
        return benches[-1].execute

    asked: dict[str, Any] = {
        "attack": AttackConfig(batch_norm=batch_norm, loss="kl" if objective == "trades" else None),
        "precision": precision,
        "objective": objective,
    }
    graphs = train_and_craft(small_model, SMALL, as_graphs, CPU, **asked)
    eager = train_and_craft(small_model, SMALL, lambda model: eagerly, CPU, **asked)
    assert differences(graphs, eager) == []
    crafting, training = benches
    assert (crafting.capture.num_captured, training.capture.num_captured) == (1, 2)
    assert crafting.capture.num_launched > 1 and training.capture.num_launched > 2
    assert crafting.told == training.told == []


def test_function_is_captured_after_its_warm_up_and_launched_from_then_on() -> None:
    bench, calls = Bench(), 0

    def counted(images: Tensor) -> Results:
        nonlocal calls
        calls += 1
        return summed(images)

    for call in range(WARM_UP + 4):
        first, nothing = bench.execute(NAME, counted, numbers(call))
        assert nothing is None and torch.equal(first, numbers(call)[0])
        assert bench.capture.num_captured == (call >= WARM_UP)
        # One launch more is the proof.
        assert bench.capture.num_launched == max(0, call - WARM_UP + 1)


def test_results_are_the_callers_own() -> None:
    bench = Bench()
    results = [bench.execute(NAME, summed, numbers(call))[0] for call in range(WARM_UP + 3)]
    for call, result in enumerate(results):
        assert result is not None and torch.equal(result, numbers(call)[0])


def test_each_name_and_layout_has_a_graph_of_its_own_up_to_a_number_that_is_told() -> None:
    bench = Bench()
    for call in range(WARM_UP + 2):
        for count in range(1, MOST_GRAPHS + 3):
            (result, _) = bench.execute(NAME, summed, numbers(call, count))
            assert result is not None and torch.equal(result, numbers(call, count)[0])
    assert bench.capture.num_captured == MOST_GRAPHS
    (told,) = bench.told
    assert told.startswith(f"a sum runs as without training.cuda_graphs: there are {MOST_GRAPHS}")


def test_looks_of_another_loss_mode_or_precision_have_graphs_of_their_own() -> None:
    bench = Bench()
    images, labels = torch.rand(8, *SMALL), torch.arange(8) % 4
    common = {"model": bench.model, "labels": labels, "natural": images, "natural_seed": 0}
    looks = list(product(("ce", "margin"), (False, True), ("float32", "bfloat16")))
    for _ in range(WARM_UP + 2):
        for loss, is_training, precision in looks:
            bench.model.train(is_training)
            asked: dict[str, Any] = {**common, "loss": LOSSES[loss], "precision": precision}
            found, expected = (
                Climb(**asked, execute=execute).slope(images, seed=0)
                for execute in (bench.execute, eagerly)
            )
            assert torch.equal(found.gradient, expected.gradient)
            assert torch.equal(found.logits, expected.logits)
    assert bench.capture.num_captured == len(looks)


class Replacing(nn.Module):
    """Keeps a mean in a buffer that it replaces instead of changing its values."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * images.detach().mean()
        return images - self.mean


class Drawing(nn.Module):
    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self._draw = draw

    def forward(self, images: Tensor) -> Tensor:
        return images + self._draw()


class Counting(nn.Module):
    """Does something else in each pass, and no stream of random numbers moves."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return images * self.passes


class Failing(StandIn):
    """Fails in the midst of capturing."""

    def capture(self, function: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        super().capture(function)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def trained(model: nn.Module, execute: Executor, *, with_slopes: bool = False) -> list[Any]:
    """Losses and slopes of some training steps, and the hash of what they come to."""
    step, told = ordinary_step(model, execute=execute), list[Any]()
    for ticket in range(WARM_UP + 3):
        images = torch.rand(8, *SMALL, generator=torch.Generator().manual_seed(ticket))
        batch = Batch(images=images.requires_grad_(with_slopes), labels=torch.arange(8) % 4)
        learned = step.gradient(ticket, batch, NO_ATTACK)
        assert (learned.slope is not None) is with_slopes
        told += [learned.loss.item(), learned.slope]
        step.apply()
    return [*told, fingerprint(model)]


@pytest.mark.parametrize(
    ("layer", "capture", "reason"),
    [
        (nn.Dropout, StandIn, "it draws at random"),
        (lambda: Drawing(np.random.rand), StandIn, "it draws at random"),
        (lambda: Drawing(random.random), StandIn, "it draws at random"),
        (Replacing, StandIn, "it replaces parameters or buffers instead of changing their values"),
        (nn.Identity, Failing, "RuntimeError: operation not permitted when stream is capturing"),
    ],
    ids=["torch draws", "numpy draws", "python draws", "replaces buffers", "fails"],
)
def test_what_cannot_be_captured_comes_to_the_same_bits_as_without_and_is_told_once(
    layer: Callable[[], nn.Module], capture: type[StandIn], reason: str
) -> None:
    bench = Bench(small_model(layer()), capture)
    found, expected = trained(bench.model, bench.execute), trained(small_model(layer()), eagerly)
    assert differences(found, expected) == []
    assert bench.capture.num_launched == 0
    (told,) = bench.told
    assert told.startswith(f"the training gradient runs as without training.cuda_graphs: {reason}")


def test_slopes_of_images_come_from_graphs_where_they_are_asked_for() -> None:
    bench = Bench(small_model())
    found = trained(bench.model, bench.execute, with_slopes=True)
    assert differences(found, trained(small_model(), eagerly, with_slopes=True)) == []
    assert differences(found[-1:], trained(small_model(), eagerly)[-1:]) == []
    assert bench.capture.num_captured == 1 and not bench.told


def test_graph_that_gives_other_bits_is_not_used() -> None:
    bench = Bench(small_model(Counting()))
    trained(bench.model, bench.execute)
    assert bench.capture.num_launched == 1
    assert bench.told[0].endswith("a replay gives other bits")


def test_buffers_are_those_of_the_call_also_where_its_graph_is_not_used() -> None:
    bench, passes = Bench(), list[int]()
    mean = bench.model.get_buffer("1.running_mean").zero_()

    def count(images: Tensor) -> Results:
        passes.append(1)
        mean.add_(len(passes))
        return [images.sum()]

    for call in range(WARM_UP + 1):
        bench.execute(NAME, count, numbers(call))
    assert bench.told[0].endswith("a replay gives other bits")
    assert mean.tolist() == [sum(range(WARM_UP + 2))] * 4


def test_cpu_runs_everything_as_without() -> None:
    assert choose_executor(True, small_model(), CPU, print) is eagerly


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_run_comes_to_the_same_hash_and_logs_what_is_not_captured(
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(name: str) -> mpiadv.TrainedRun:
        asked = ["training.cuda_graphs=true", f"training.precision={precision}"]
        words = [*WORDS, *asked, f"output={tmp_path / name}"]
        return mpiadv.train(mpiadv.load_config(overrides=words))

    eager = train("eager")
    assert "warning: training.cuda_graphs has no effect on cpu\n" in capsys.readouterr().out
    benches: list[Bench] = []

    def as_graphs(wanted: bool, model: nn.Module, device: Device, tell: Any) -> Executor:
        assert wanted
        benches.append(Bench(model, tell=tell))
        return benches[-1].execute

    monkeypatch.setattr(setup, "choose_executor", as_graphs)
    graphs = train("graphs")
    assert graphs.hash == eager.hash
    assert [bench.capture.num_captured for bench in benches] == [1, 1]
    events = mpiadv.read_log(graphs.folder).events
    (told,) = (row["text"].decode() for row in events if row["kind"] == b"eager")
    assert told == "the training gradient runs as without training.cuda_graphs: it draws at random"
    assert f": {told}\n" in capsys.readouterr().out
