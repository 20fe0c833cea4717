"""The trainer's own last attack steps, on the parameters of the moment. Knows no messages."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from mpiadv.attacks import input_gradient, make_attack, mean_magnitude
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.objectives import Batch
from mpiadv.work.craft import CraftPlan


def finish_attack(
    plan: CraftPlan,
    model: nn.Module,
    ticket: int,
    batch: Batch,
    settings: AttackSettings,
    pump: Callable[[], None],
) -> tuple[Batch, Tensor | None]:
    """The batch after the steps that the staleness rule leaves to the trainer, if any.

    And the mean magnitude of the gradient at the last of them, float32 []. Buffers of `model` are
    left as they were, its mode is that of the attack.

    Args:
        batch: with its natural images; those at its front that stay clean are not attacked.
        pump: called after each step, to keep messages moving.
    """
    first = plan.rule.crafting_steps(settings.num_steps)
    if first == settings.num_steps:
        return batch, None
    assert batch.natural is not None
    clean = plan.num_clean
    labels = batch.labels[clean:]
    model.train(plan.attack.batch_norm == "train")
    buffers = [buffer.clone() for buffer in model.buffers()]
    numbers = itertools.count(first)
    magnitude: Tensor | None = None

    def gradient(images: Tensor) -> Tensor:
        nonlocal magnitude
        slope, _ = input_gradient(
            model, images, labels, precision=plan.precision,
            seed=seed_for(plan.seed, Purpose.ATTACK_DROPOUT, ticket, next(numbers)),
        )  # fmt: skip
        magnitude = mean_magnitude(slope)
        return slope

    attacked = batch.images[clean:]
    steps = make_attack(plan.attack, settings).steps(
        gradient, batch.natural[clean:], attacked, first=first
    )
    for moved in steps:
        attacked = moved
        pump()
    with torch.no_grad():
        for buffer, kept in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(kept)
    return replace(batch, images=torch.cat([batch.natural[:clean], attacked])), magnitude
