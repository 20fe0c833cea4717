"""The trainer's own last attack steps, on the parameters of the moment. Knows no messages."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mpiadv.attacks import make_attack
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.methods.objectives import Batch
from mpiadv.work.recipe import Recipe, climb_of


def finish_attack(
    recipe: Recipe,
    model: nn.Module,
    ticket: int,
    batch: Batch,
    settings: AttackSettings,
    pump: Callable[[], None],
) -> tuple[Batch, Tensor | None]:
    """The batch after the steps that the staleness rule leaves to the trainer, if any.

    And the mean magnitude of the gradient at the last of them, float32 []. Buffers of `model` are
    left as they were, its mode is that of the attack. No image is stopped when they begin, whatever
    the steps before have seen.

    Args:
        batch: with its natural images; those at its front that stay clean are not attacked.
        pump: called after each step, to keep messages moving.
    """
    first = recipe.rule.crafting_steps(settings.num_steps)
    if first == settings.num_steps:
        return batch, None
    assert batch.natural is not None
    model.train(recipe.attack.batch_norm == "train")
    attack, clean = make_attack(recipe.attack, settings), recipe.num_clean
    steps = range(first, settings.num_steps)
    seeds = (seed_for(recipe.seed, Purpose.ATTACK_DROPOUT, ticket, step) for step in steps)
    climb = climb_of(recipe, attack, model, ticket, batch)
    attacked = attack.run(
        climb.looking(seeds),
        batch.natural[clean:],
        batch.images[clean:],
        first=first,
        after_step=pump,
    )
    images = torch.cat([batch.natural[:clean], attacked])
    return dataclasses.replace(batch, images=images), climb.magnitude
