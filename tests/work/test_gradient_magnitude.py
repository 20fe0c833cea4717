"""How steep the loss was at the last look at it, whoever took that: the crafter or the trainer."""

import copy

import pytest
import torch
from ordinary_steps import ordinary_step
from recipes import recipe_of
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.methods.objective import Batch
from mpiadv.work.device import Device
from mpiadv.work.learn import TorchLearner

NUM_CLEAN = 3


def a_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def a_batch() -> Batch:
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return Batch(images=images, labels=torch.arange(8) % 3, natural=images)


def a_learner(model: nn.Module, *, trainer_steps: int = 0, tells_gradient: bool) -> TorchLearner:
    rule = StalenessRule(
        max_staleness=0, final_staleness=0, publish_every=1, trainer_steps=trainer_steps
    )
    recipe = recipe_of(num_samples=8, batch_size=8, num_clean=NUM_CLEAN, rule=rule)
    device, step = Device(torch.device("cpu")), ordinary_step(model)
    return TorchLearner(recipe, step, device, tells_gradient=tells_gradient)


def trained(learner: TorchLearner, num_steps: int) -> float | None:
    settings = AttackSettings(num_steps=num_steps, epsilon=0.1)
    learner.train(0, a_batch(), settings, lambda: None)
    (told,) = learner.told()
    return told.gradient_magnitude


def plain_magnitude(model: nn.Module, images: Tensor) -> float:
    """Mean over the attacked images of the L1 norm of each one's own gradient."""
    norms = []
    for image, label in zip(images[NUM_CLEAN:], a_batch().labels[NUM_CLEAN:], strict=True):
        one = image[None].clone().requires_grad_()
        functional.cross_entropy(model(one), label[None]).backward()
        assert one.grad is not None
        norms.append(float(one.grad.abs().sum()))
    return sum(norms) / len(norms)


def test_training_without_attack_tells_the_magnitude_of_its_attacked_images() -> None:
    model = a_model()
    expected = plain_magnitude(copy.deepcopy(model), a_batch().images)
    told = trained(a_learner(model, tells_gradient=True), num_steps=0)
    assert told == pytest.approx(expected, rel=1e-5)


def test_trainer_that_runs_the_last_attack_steps_tells_the_magnitude_at_the_last_one() -> None:
    model = a_model()
    first = trained(a_learner(copy.deepcopy(model), trainer_steps=1, tells_gradient=False), 1)
    assert first == pytest.approx(plain_magnitude(model, a_batch().images), rel=1e-5)
    both = trained(a_learner(copy.deepcopy(model), trainer_steps=2, tells_gradient=False), 2)
    assert both is not None and first is not None and both > first


@pytest.mark.parametrize(
    ("tells_gradient", "num_steps"), [(False, 0), (True, 1)], ids=["not_asked", "attacked"]
)
def test_trainer_tells_no_magnitude_where_nobody_asks_or_the_crafter_took_the_last_look(
    tells_gradient: bool, num_steps: int
) -> None:
    assert trained(a_learner(a_model(), tells_gradient=tells_gradient), num_steps) is None


def test_asking_for_the_magnitude_trains_the_same_bits() -> None:
    models = [a_model() for _ in range(2)]
    for model, tells_gradient in zip(models, (True, False), strict=True):
        trained(a_learner(model, tells_gradient=tells_gradient), 0)
    ours, theirs = (model.state_dict() for model in models)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
