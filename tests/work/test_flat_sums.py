"""What tickets come to, laid out flat: the bits of sums that were never flat."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.work import flat_sums
from mpiadv.work.flat_sums import FlatSums
from mpiadv.work.step_sum import StepSum, Told


class _Odd(nn.Module):
    """Parameters of two types and layouts, and buffers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 5, 2, 2).to(memory_format=torch.channels_last))
        self.short = nn.Parameter(torch.zeros(7, dtype=torch.bfloat16))
        self.seldom = nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int32))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("stays", torch.tensor([1e38, -1e38]))


def _pass(model: _Odd, ticket: int) -> None:
    """What the pass of a ticket leaves behind; not every one reaches every parameter."""
    generator = torch.Generator().manual_seed(ticket)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        values[torch.rand(values.shape, generator=generator) < 0.3] = -0.0
        gradient = torch.empty_like(parameter).copy_(values)
        parameter.grad = gradient if name != "seldom" or ticket in (2, 5) else None
    model.get_buffer("mean").add_(torch.randn(3, generator=generator))
    model.get_buffer("count").add_(ticket + 1)
    model.get_buffer("seen")[ticket % 2] = True


def _state(model: _Odd) -> list[tuple[bytes, tuple[int, ...]] | None]:
    tensors: list[Tensor | None] = [parameter.grad for parameter in model.parameters()]
    tensors += model.buffers()
    return [
        None if t is None else (t.reshape(-1).view(torch.uint8).numpy().tobytes(), t.stride())
        for t in tensors
    ]


def _told(ticket: int) -> Told:
    return Told(torch.tensor(float(ticket)), torch.tensor(0.0), None)


def _of_trainers(num_trainers: int, tickets: list[int]) -> list[_Odd]:
    """The models of so many trainers after a step of the tickets."""
    models = [_Odd() for _ in range(num_trainers)]
    share = len(tickets) // num_trainers
    step_sums = [StepSum(model, share, num_trainers) for model in models]
    flat = FlatSums(models[0])
    buffers = [plain_memory(flat.num_bytes) for _ in models]
    for trainer, (model, together) in enumerate(zip(models, step_sums, strict=True)):
        for ticket in tickets[trainer * share : (trainer + 1) * share]:
            together.begin()
            _pass(model, ticket)
            together.end(_told(ticket))
        flat.pack(together.take(), buffers[trainer])
    while len(buffers) > 1:
        for left, right in zip(buffers[::2], buffers[1::2], strict=True):
            middle = flat.num_bytes // 128 * 64  # in pieces, as they come
            flat.add(left, middle, right[middle:])
            flat.add(left, 0, right[:middle])
        buffers = buffers[::2]
    for together in step_sums:
        together.complete(flat.unpack(buffers[0]))
    return models


@pytest.mark.parametrize("tickets", [list(range(8)), [0, 1, 3, 4, 6, 7, 8, 9]])
@pytest.mark.parametrize("num_trainers", [1, 2, 4, 8])
def test_sum_of_all_trainers_has_the_bits_of_one(num_trainers: int, tickets: list[int]) -> None:
    alone = _Odd()
    together = StepSum(alone, len(tickets))
    for ticket in tickets:
        together.begin()
        _pass(alone, ticket)
        together.end(_told(ticket))
    together.complete()
    for model in _of_trainers(num_trainers, tickets):
        assert _state(model) == _state(alone)


def test_pieces_are_ready_as_their_copies_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_sums, "PIECE_BYTES", 64)
    done = set[int]()
    begun: list[tuple[Tensor, Bytes]] = []

    def copy_aside(source: Tensor, target: Bytes) -> Callable[[], bool]:
        """A device that copies when it is told to."""
        begun.append((source, target))
        number = len(begun) - 1
        return lambda: number in done

    model = _Odd()
    _pass(model, 2)
    summands = [*(p.grad for p in model.parameters()), *(None for _ in model.buffers())]
    values, expected = plain_memory(1024), plain_memory(1024)
    FlatSums(model).pack(summands, expected)
    is_ready = FlatSums(model, copy_aside).pack(summands, values)
    reached = []
    for number, (source, target) in enumerate(begun):
        assert not is_ready(FlatSums(model).num_bytes)
        reached.append(max(end for end in range(0, 1024, 64) if is_ready(end)))
        torch.from_numpy(target).copy_(source)
        done.add(number)
    assert reached == sorted(set(reached)), "further with each copy"
    assert is_ready(FlatSums(model).num_bytes)
    assert values.tobytes() == expected.tobytes()


def test_parameter_that_no_pass_reaches_has_no_gradient() -> None:
    (model,) = _of_trainers(1, [0, 1, 3, 4])
    assert model.seldom.grad is None and model.weight.grad is not None


def test_layout_is_of_whole_blocks() -> None:
    flat = FlatSums(_Odd())
    assert flat.num_bytes % 64 == 0
    values = plain_memory(flat.num_bytes)
    flat.pack([None] * 7, values)
    assert all(summand is None for summand in flat.unpack(values))
    assert np.array_equal(values[:4].view(np.float32), [-0.0]) and values[3] == 0x80
