"""Training on several tickets a step, by a plain loop: gradients accumulated by a tree."""

import copy
from collections.abc import Sequence

import torch
from end_to_end import TINY, staleness
from plain_methods import METHODS
from plain_training import Seen, attack_plainly
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.contract.tickets import Purpose, SampleOrder, seed_for
from mpiadv.data import load_data
from mpiadv.models import build_model, fingerprint
from mpiadv.models.random_streams import seed_streams
from mpiadv.settings import Config, load_config

STEPS = 10
WORDS = (
    *TINY, f"training.num_steps={STEPS}", "model.name=small_models:batch_norm",
    "log.natural_every=0", *staleness(0, 0, 1),
)  # fmt: skip
"""Of a configuration that the loop follows: statistics of batches, and dropout."""


def _tree(values: Sequence[Tensor]) -> Tensor:
    """Pairs of neighbours, then pairs of pairs."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return _tree(values[:half]) + _tree(values[half:])


def _mean(values: Sequence[Tensor]) -> Tensor:
    total = _tree(values)
    return total / len(values) if total.is_floating_point() else total // len(values)


def _pass(model: nn.Module, config: Config, ticket: int) -> list[Tensor]:
    """Gradients of a ticket on adversarial images, then the buffers behind it."""
    data, method = load_data(config.data).train, METHODS["pgd"]
    order = SampleOrder(seed=0, num_samples=data.num_samples, batch_size=config.data.batch_size)
    natural, labels = data.batch(order.indices(ticket))
    generator = torch.Generator().manual_seed(seed_for(0, Purpose.START, ticket))
    attacked = copy.deepcopy(model).eval()
    seen = Seen(
        model=attacked, images=natural, natural=natural, nearby=natural, labels=labels,
        targets=labels,
    )  # fmt: skip
    images, _ = attack_plainly(method, seen, ticket, config.attack.num_steps, generator)
    model.train()
    seed_streams(seed_for(0, Purpose.DROPOUT, ticket), torch.device("cpu"))
    loss = functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [*gradients, *(buffer.clone() for buffer in model.buffers())]


def accumulate_plainly(words: Sequence[str], per_step: int) -> str:
    """The hash of what the loop trains with these words, `WORDS` among them."""
    config = load_config(None, words)
    model = build_model(
        config.model, num_classes=10, image_shape=(1, 8, 8), seed=seed_for(0, Purpose.MODEL)
    )
    optimizer = METHODS["pgd"].optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.005, total_steps=STEPS, pct_start=0.3, cycle_momentum=False
    )
    parameters, buffers = list(model.parameters()), list(model.buffers())
    for step in range(STEPS):
        before, passes = [buffer.clone() for buffer in buffers], []
        for ticket in range(step * per_step, (step + 1) * per_step):
            passes.append(_pass(model, config, ticket))
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        means = [_mean(each) for each in zip(*passes, strict=True)]
        for parameter, gradient in zip(parameters, means, strict=False):
            parameter.grad = gradient
        for buffer, value in zip(buffers, means[len(parameters) :], strict=True):
            buffer.copy_(value)
        optimizer.step()
        schedule.step()
    return fingerprint(model)
