"""The flat vector carries every bit of a module's state, and the fingerprint sees every bit."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpiadv.models import FlatState, build_model, fingerprint
from mpiadv.settings import ModelConfig


class Mixed(nn.Module):
    """Parameters and buffers of many dtypes and shapes, one of them shared, one not persistent."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.tied = self.first
        self.norm = nn.BatchNorm1d(5)
        self.bfloat16_values = nn.Parameter(torch.randn(7, dtype=torch.bfloat16))
        self.float64_values = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
        self.strided = nn.Parameter(torch.randn(4, 3).t())
        self.register_buffer("mask", torch.tensor([True, False, True]), persistent=False)
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("nothing", None)


def changed(module: nn.Module) -> nn.Module:
    """A copy with other values everywhere."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
    return other


def packed(module: nn.Module) -> Tensor:
    state = FlatState(module)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8)
    state.pack(flat)
    return flat


@pytest.mark.parametrize("name", ["mixed", "preact_resnet18", "normalised", "without_state"])
def test_state_survives_the_flat_vector_bit_by_bit(name: str) -> None:
    module = make(name)
    other = changed(module)
    FlatState(other).unpack(packed(module))
    assert fingerprint(other) == fingerprint(module)


def test_every_tensor_starts_at_a_multiple_of_64_bytes() -> None:
    module = Mixed()
    flat, start = packed(module), 0
    for tensor in (*module.parameters(), *module.buffers()):
        content = tensor.detach().reshape(-1).view(torch.uint8)
        assert torch.equal(flat[start : start + tensor.nbytes], content)
        start += -(-tensor.nbytes // 64) * 64
    assert start == FlatState(module).num_bytes


def test_not_a_number_keeps_its_payload() -> None:
    module = nn.Linear(2, 1)
    bits = torch.tensor([[0x7FC01234, -1]], dtype=torch.int32)
    module.weight.data = bits.view(torch.float32)
    other = nn.Linear(2, 1)
    FlatState(other).unpack(packed(module))
    assert torch.equal(other.weight.detach().view(torch.int32), bits)


@pytest.mark.parametrize("floats", [torch.float16, torch.bfloat16], ids=str)
def test_floats_are_rounded_on_their_way_and_nothing_else(floats: torch.dtype) -> None:
    module = Mixed()
    module.norm.num_batches_tracked.fill_(2**40 + 1)
    other, state = changed(module), FlatState(module, floats)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8)
    state.pack(flat)
    FlatState(other, floats).unpack(flat)
    for (name, value), there in zip(
        module.state_dict().items(), other.state_dict().values(), strict=True
    ):
        is_rounded = value.is_floating_point()
        expected = value.to(floats).to(value.dtype) if is_rounded else value
        assert there.dtype == value.dtype and torch.equal(there, expected), name


@pytest.mark.parametrize("floats", [torch.float16, torch.bfloat16], ids=str)
def test_vector_of_two_byte_floats_is_half_as_long(floats: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32))
    whole, half = FlatState(module).num_bytes, FlatState(module, floats).num_bytes
    assert half - 64 == (whole - 64) / 2  # all but the counter of batch norm


def test_largest_value_is_found_in_parameters_and_buffers() -> None:
    module = Mixed()
    module.norm.num_batches_tracked.fill_(2**40)
    for tensor in (module.norm.running_var, module.float64_values.data):
        tensor.view(-1)[1] = -7e4
        assert float(FlatState(module).largest()) == 7e4
        tensor.view(-1)[1] = float("nan")
        assert torch.isnan(FlatState(module).largest())
        tensor.view(-1)[1] = 0.0
    assert float(FlatState(nn.ReLU()).largest()) == 0.0


def test_unpacking_writes_in_place_and_records_no_gradient() -> None:
    module = nn.Linear(3, 2)
    weight, pointer = module.weight, module.weight.data_ptr()
    FlatState(module).unpack(packed(changed(module)))
    assert module.weight is weight
    assert module.weight.data_ptr() == pointer
    assert weight.requires_grad
    assert weight.grad_fn is None


def test_buffers_replaced_after_construction_are_followed() -> None:
    module = nn.BatchNorm1d(4)
    state = FlatState(module)
    module._apply(lambda tensor: tensor.clone())
    flat = packed(changed(module))
    state.unpack(flat)
    assert torch.equal(packed(module), flat)


@pytest.mark.parametrize(
    "flat",
    [torch.zeros(63, dtype=torch.uint8), torch.zeros(128), torch.zeros(1, 128, dtype=torch.uint8)],
    ids=["length", "dtype", "dimensions"],
)
def test_vector_of_another_layout_is_refused(flat: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[128\]"):
        FlatState(nn.Linear(2, 1)).unpack(flat)


def test_fingerprint_is_the_same_for_equal_states() -> None:
    module = Mixed()
    assert fingerprint(copy.deepcopy(module)) == fingerprint(module)


def flip_one_bit(module: Mixed) -> None:
    module.first.weight.data.view(torch.int32)[0, 0] ^= 1


def change_buffer(module: Mixed) -> None:
    module.mask[0] = False


def change_dtype(module: Mixed) -> None:
    module.bfloat16_values.data = module.bfloat16_values.data.view(torch.float16)


def change_shape(module: Mixed) -> None:
    module.float64_values.data = module.float64_values.data.reshape(3, 2)


def rename(module: Mixed) -> None:
    module.other_name, module.bfloat16_values = module.bfloat16_values, None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change", [flip_one_bit, change_buffer, change_dtype, change_shape, rename]
)
def test_fingerprint_sees_every_change(change: Callable[[Mixed], None]) -> None:
    module = Mixed()
    before = fingerprint(module)
    change(module)
    assert fingerprint(module) != before


def make(name: str) -> nn.Module:
    if name == "mixed":
        return Mixed()
    if name == "without_state":
        return nn.ReLU()
    fields = {"mean": [0.5], "std": [0.25]} if name == "normalised" else {}
    config = ModelConfig.model_validate({"name": "preact_resnet18", **fields})
    return build_model(config, num_classes=10, image_shape=(3, 32, 32), seed=0)
