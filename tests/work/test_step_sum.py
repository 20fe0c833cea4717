"""What a step's tickets come to, and what the model is until the last of them."""

import copy

import torch
from torch import Tensor, nn

from mpiadv.work.step_sum import StepSum, Told


class Counting(nn.Module):
    """Float, whole and truth buffers that each pass changes; a layer that only some reach."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.seldom = nn.Linear(2, 1), nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(2)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(3, dtype=torch.bool))

    def forward(self, values: Tensor, ticket: int) -> Tensor:
        self.seen[ticket % 3] = True
        loss: Tensor = self.used(self.norm(values)).sum()
        return loss + self.seldom(values).sum() if ticket == 2 else loss


def _model() -> Counting:
    torch.manual_seed(0)
    return Counting()


def _values(ticket: int) -> Tensor:
    return torch.rand(5, 2, generator=torch.Generator().manual_seed(ticket)) + ticket


def _passed(model: Counting, ticket: int) -> float:
    model.zero_grad(set_to_none=True)
    loss = model(_values(ticket), ticket)
    loss.backward()
    return float(loss.detach())


def _told(loss: float, magnitude: float | None = 1.0) -> Told:
    measured = None if magnitude is None else torch.tensor(magnitude)
    return Told(torch.tensor(loss), torch.tensor(loss / 8), measured)


def test_gradients_and_statistics_are_means_of_passes_that_begin_alike() -> None:
    model, alone = _model(), []
    for ticket in range(4):
        one = copy.deepcopy(model)
        _passed(one, ticket)
        alone.append(one)
    together = StepSum(model, 4)
    for ticket in range(4):
        together.begin()
        _passed(model, ticket)
        together.end(_told(ticket))
    together.complete()
    for name, buffer in model.named_buffers():
        each = [dict(one.named_buffers())[name] for one in alone]
        if buffer.dtype == torch.bool:
            assert buffer.tolist() == [True, True, True]
        elif buffer.is_floating_point():
            assert torch.equal(buffer, ((each[0] + each[1]) + (each[2] + each[3])) / 4), name
        else:
            assert buffer == 1, "each pass counts itself"
    gradients = [one.used.weight.grad for one in alone]
    total = (gradients[0] + gradients[1]) + (gradients[2] + gradients[3])  # type: ignore[operator]
    assert model.used.weight.grad is not None
    assert torch.equal(model.used.weight.grad, total / 4)
    rare = alone[2].seldom.weight.grad
    assert rare is not None and model.seldom.weight.grad is not None
    assert torch.equal(model.seldom.weight.grad, rare / 4)
    assert [told.loss.item() for told in together.told] == [0, 1, 2, 3]


def test_model_is_as_the_step_found_it_until_it_is_completed() -> None:
    model = _model()
    before = copy.deepcopy(dict(model.named_buffers()))
    together = StepSum(model, 2)
    for ticket in range(2):
        together.begin()
        _passed(model, ticket)
        together.end(_told(0.0))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_second_step_begins_anew() -> None:
    model = _model()
    together = StepSum(model, 2)
    for ticket in range(4):
        together.begin()
        _passed(model, ticket)
        together.end(_told(ticket))
        if ticket % 2:
            together.complete()
    assert [told.loss.item() for told in together.told] == [2, 3]
    assert model.norm.num_batches_tracked == 2


def test_single_ticket_keeps_its_own_tensors() -> None:
    model = _model()
    together = StepSum(model, 1)
    together.begin()
    _passed(model, 2)
    gradient = model.used.weight.grad
    together.end(_told(3.0, None))
    together.complete()
    assert model.used.weight.grad is gradient


def test_buffers_that_stay_are_not_added_and_small_types_do_not_overflow() -> None:
    model = _model()
    lowest = torch.full((2,), torch.finfo(torch.float32).min)
    model.register_buffer("mask", lowest.clone())
    model.register_buffer("count", torch.tensor(200, dtype=torch.uint8))
    together = StepSum(model, 4)
    for ticket in range(4):
        together.begin()
        _passed(model, ticket)
        model.get_buffer("count").fill_(240)
        together.end(_told(ticket))
    together.complete()
    assert torch.equal(model.get_buffer("mask"), lowest)
    assert model.get_buffer("count") == 240
