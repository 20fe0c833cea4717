"""Rounding for the wire: the same whoever crafted, and never silently infinite."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ordinary_steps import ordinary_step
from recipes import recipe_of
from torch import Tensor, nn

from mpiadv.comm.links import BatchSlot, ParameterSlot, plain_memory
from mpiadv.comm.messages import BatchShape, WireDtype
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.process.errors import UserError
from mpiadv.session.same_run import FORMAT, require_same_run
from mpiadv.settings import Config, load_config
from mpiadv.storage.checkpoint import Checkpoint
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device
from mpiadv.work.learn import TorchLearner
from mpiadv.work.recipe import Recipe
from mpiadv.work.rounding import WIRE_TENSORS, rounded

BATCH_SIZE = 8
SETTINGS = AttackSettings(num_steps=2, epsilon=0.1)
WIRES: tuple[WireDtype, ...] = ("float32", "float16", "bfloat16")


class Pictures:
    """Sixteen images of two pixels by two, whose pixels no type of two bytes can hold."""

    num_samples = 16

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images = torch.rand(self.num_samples, 1, 2, 2, generator=torch.Generator().manual_seed(1))
        return images[indices], torch.as_tensor(indices) % 2

    def prefetch(self, indices: Tensor, *, urgency: int = 0) -> None:
        pass

    def forget(self, indices: Tensor) -> None:
        pass


class Turned(Pictures):
    """The same, their pixels in memory column by column."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = super().batch(indices)
        return images.transpose(2, 3), labels


def recipe(wire_dtype: WireDtype) -> Recipe:
    return recipe_of(
        num_samples=16, batch_size=BATCH_SIZE, num_clean=2, keep_natural=True, wire_dtype=wire_dtype
    )


def new_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def learner(wire_dtype: WireDtype, model: nn.Module | None = None) -> TorchLearner:
    step = ordinary_step(model or new_model())
    return TorchLearner(recipe(wire_dtype), step, Device(torch.device("cpu")))


def crafted(wire_dtype: WireDtype, source: Pictures | None = None) -> tuple[TorchCrafter, Batch]:
    """A crafter and its batch, as it hands it over."""
    device = Device(torch.device("cpu"))
    crafter = TorchCrafter(recipe(wire_dtype), new_model(), source or Pictures(), device)
    teacher = learner(wire_dtype)
    slot = ParameterSlot(teacher.parameter_bytes, plain_memory)
    assert teacher.snapshot(slot.values)()
    crafter.start(0, SETTINGS)
    for step in range(SETTINGS.num_steps):
        crafter.run(AttackStep(ticket=0, step=step, version=0), slot)
    return crafter, crafter.finish(0)[0]


@pytest.mark.parametrize("wire_dtype", WIRES)
def test_batch_that_stays_equals_the_one_that_travels(wire_dtype: WireDtype) -> None:
    crafter, batch = crafted(wire_dtype)
    shape = BatchShape(
        batch_size=BATCH_SIZE, image_shape=(1, 2, 2), with_natural=True, wire_dtype=wire_dtype
    )
    slot = BatchSlot(shape, plain_memory)
    crafter.download(batch, slot)
    received = learner(wire_dtype).upload(slot)
    assert received.natural is not None and batch.natural is not None
    assert received.images.dtype == received.natural.dtype == torch.float32
    assert torch.equal(received.images, batch.images)
    assert torch.equal(received.natural, batch.natural)
    assert torch.equal(received.labels, batch.labels)


@pytest.mark.parametrize(("wire_dtype", "slack"), [("float16", 2.5e-4), ("bfloat16", 2e-3)])
def test_rounded_batch_stays_in_the_unit_cube_and_almost_in_its_ball(
    wire_dtype: WireDtype, slack: float
) -> None:
    exact, batch = crafted("float32")[1], crafted(wire_dtype)[1]
    assert batch.natural is not None and exact.natural is not None
    assert not torch.equal(batch.natural, exact.natural)
    assert torch.equal(batch.natural, rounded(exact.natural, wire_dtype))
    assert torch.equal(batch.images, rounded(batch.images, wire_dtype))
    assert float(batch.images.min()) >= 0 and float(batch.images.max()) <= 1
    furthest = float((batch.images - exact.natural).abs().max())
    assert 0.05 < furthest <= SETTINGS.epsilon + slack


@pytest.mark.parametrize("wire_dtype", ["float16", "bfloat16"])
def test_message_of_two_byte_floats_is_half_as_long(wire_dtype: WireDtype) -> None:
    def shape(dtype: WireDtype) -> BatchShape:
        return BatchShape(batch_size=128, image_shape=(3, 32, 32), wire_dtype=dtype)

    labels_and_header = shape("float32").num_bytes - 4 * 128 * 3 * 32 * 32
    assert shape(wire_dtype).num_bytes == labels_and_header + 2 * 128 * 3 * 32 * 32


def enlarge_weight(model: nn.Module) -> None:
    model.get_parameter("2.weight").data[0, 0] = 7e4


def enlarge_variance(model: nn.Module) -> None:
    model.get_buffer("1.running_var")[0] = 1e6


@pytest.mark.parametrize("spoil", [enlarge_weight, enlarge_variance])
def test_parameters_that_float16_cannot_hold_are_refused(
    spoil: Callable[[nn.Module], None],
) -> None:
    model = new_model()
    spoil(model)
    values = plain_memory(learner("float16").parameter_bytes)
    with pytest.raises(UserError, match=r"wire_dtype=float16 holds at most 65504.*bfloat16 or"):
        learner("float16", model).snapshot(values)
    assert learner("bfloat16", model).snapshot(values)()


def test_parameters_that_diverged_are_left_to_the_loss_to_show() -> None:
    model = new_model()
    model.get_parameter("2.bias").data[0] = float("nan")
    values = plain_memory(learner("float16").parameter_bytes)
    assert learner("float16", model).snapshot(values)()


@pytest.mark.parametrize("wire_dtype", WIRES)
def test_snapshot_holds_the_rounded_parameters(wire_dtype: WireDtype) -> None:
    teacher = learner(wire_dtype)
    values = plain_memory(teacher.parameter_bytes)
    assert teacher.snapshot(values)()
    weight = teacher.model.get_parameter("1.weight").detach()
    stored = torch.from_numpy(values[: weight.numel() * WIRE_TENSORS[wire_dtype].itemsize])
    assert torch.equal(stored.view(WIRE_TENSORS[wire_dtype]), weight.to(WIRE_TENSORS[wire_dtype]))


@pytest.mark.parametrize(
    ("key", "value", "unless_said"),
    [("training.wire_dtype", "float16", "float32"), ("average.decay", "0.9", "None")],
)
def test_checkpoint_from_before_a_setting_has_its_default(
    key: str, value: str, unless_said: str
) -> None:
    identity = Config().identity()
    del identity[key]
    parts = ("model", "unsaved_buffers", "optimizer", "schedule", "versions")
    payload = {
        "format": FORMAT,
        "identity": json.dumps(identity),
        "threads": 1,
        "device": "cpu",
        **{part: {} for part in parts},
    }
    checkpoint = Checkpoint(path=Path("old.pt"), step=1, payload=payload)
    require_same_run(Config(), checkpoint)
    with pytest.raises(UserError, match=rf"trained with {key}={unless_said}, this run has"):
        require_same_run(load_config(None, [f"{key}={value}"]), checkpoint)


def test_batch_lies_in_memory_as_if_it_had_travelled() -> None:
    _, batch = crafted("float32", Turned())
    assert batch.images.is_contiguous()
    assert batch.natural is not None and batch.natural.is_contiguous()
