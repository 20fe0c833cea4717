"""The two halves of a training step: several tickets fit between them."""

import copy

import pytest
import torch
from ordinary_steps import ordinary_step, step_parts
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import TrainingStep
from mpiadv.methods.training_steps import TRAINING_STEPS
from mpiadv.models import fingerprint

TWO_STEPS = AttackSettings(num_steps=2, epsilon=0.1)
SETTINGS = AttackSettings(num_steps=0, epsilon=0.0)


def batch_of(ticket: int) -> Batch:
    generator = torch.Generator().manual_seed(ticket)
    images = torch.rand(8, 1, 2, 2, generator=generator)
    return Batch(images=images, labels=torch.arange(8) % 2, natural=images)


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def test_mean_gradient_of_a_steps_tickets_is_applied_once() -> None:
    step, expected = ordinary_step(new_model(), num_clean=6), new_model()
    gradients: list[list[Tensor]] = []
    for ticket in (0, 1):
        batch = batch_of(ticket)
        learned = step.gradient(ticket, batch, SETTINGS)
        gradients.append([parameter.grad.clone() for parameter in step.model.parameters()])
        logits = expected(batch.images)
        loss = functional.cross_entropy(logits, batch.labels)
        (loss / 2).backward()
        assert learned.loss.item() == pytest.approx(loss.item())
        is_right = (logits.argmax(dim=1) == batch.labels)[6:]
        assert learned.accuracy.item() == is_right.float().mean().item()
        torch.testing.assert_close(step.model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    for parameter, *parts in zip(step.model.parameters(), *gradients, strict=True):
        parameter.grad = torch.stack(parts).mean(dim=0)
    assert (step.steps_done, step.apply(), step.steps_done) == (0, 1.0, 1)
    torch.optim.SGD(expected.parameters(), lr=1.0).step()
    torch.testing.assert_close(step.model.state_dict(), expected.state_dict())


@pytest.mark.parametrize("name", ["ordinary", "awp"])
def test_gradient_is_a_function_of_model_batch_and_ticket_and_moves_no_parameter(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    before = fingerprint(model)
    first = TRAINING_STEPS[name](step_parts(model))
    for other in (5, 6):
        first.gradient(other, batch_of(other), SETTINGS)
    second = TRAINING_STEPS[name](step_parts(copy.deepcopy(model)))
    for step in (first, second):
        step.gradient(7, batch_of(7), SETTINGS)
        assert fingerprint(step.model) == before
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)
    second.gradient(8, batch_of(7), SETTINGS)
    assert not torch.equal(first.model[2].weight.grad, second.model[2].weight.grad)


@pytest.mark.parametrize("name", TRAINING_STEPS)
def test_step_that_is_gone_on_with_ends_in_the_same_bits(name: str) -> None:
    def new_step() -> TrainingStep:
        model = new_model()
        return TRAINING_STEPS[name](step_parts(model, torch.optim.Adam(model.parameters())))

    def train(step: TrainingStep, *tickets: int) -> None:
        for ticket in tickets:
            for _ in range(step.replays(TWO_STEPS)):
                step.gradient(ticket, batch_of(ticket), TWO_STEPS)
                step.apply()

    calm, interrupted, resumed = (new_step() for _ in range(3))
    train(calm, 0, 1, 2, 3)
    train(interrupted, 0, 1)
    resumed.model.load_state_dict(interrupted.model.state_dict())
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    train(resumed, 2, 3)
    assert fingerprint(resumed.model) == fingerprint(calm.model)
    assert resumed.steps_done == calm.steps_done == 4
