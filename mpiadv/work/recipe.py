"""By what every ticket is made: what crafting and training need of the configuration. No MPI."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mpiadv.attacks import Climb, TicketAttack, crafting_attack, num_copies
from mpiadv.comm.messages import WireDtype
from mpiadv.contract.tickets import (
    AttackSettings,
    Purpose,
    SampleOrder,
    StalenessRule,
    seed_for,
)
from mpiadv.data.mixing import cut_mix
from mpiadv.methods.objective import Batch
from mpiadv.models import FlatState
from mpiadv.models.execution import Executor, eagerly
from mpiadv.settings import AttackConfig, DataConfig, Precision
from mpiadv.work.rounding import WIRE_TENSORS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The same on every rank of a team; what is random goes by a ticket's `rule.number`.

    `sources`: networks that batches are crafted on beside the one being trained, frozen.
    """

    seed: int
    rule: StalenessRule
    order: SampleOrder
    data: DataConfig
    attack: AttackConfig
    precision: Precision
    num_clean: int
    num_classes: int
    natural_every: int
    keep_natural: bool
    keep_notes: bool
    draw_nearby: bool
    wire_dtype: WireDtype
    sources: tuple[nn.Module, ...] = ()

    @property
    def num_images(self) -> int:
        """How many images of a batch attackers hand on.

        Several of each, where attacks are several and none of them is chosen yet, or none at all.
        """
        size, several = self.order.batch_size, num_copies(self.attack)
        is_chosen = self.attack.combine == "worst" and self.rule.trainer_steps == 0
        return size if is_chosen else self.num_clean + several * (size - self.num_clean)

    def indices(self, ticket: int) -> npt.NDArray[np.int64]:
        """The samples of a ticket of this rank's team: int64 [batch_size]."""
        return self.order.indices(self.rule.number(ticket))

    def attack_on(self, number: int, settings: AttackSettings) -> TicketAttack:
        """What crafts a ticket. Raises UserError: as `make_attack`."""
        return crafting_attack(self.attack, settings, seed_for(self.seed, Purpose.THREATS, number))

    def source_of(self, number: int) -> nn.Module | None:
        """The network that a ticket is crafted on; None: the one being trained."""
        if not self.sources:
            return None
        networks = (None, *self.sources)
        return networks[seed_for(self.seed, Purpose.SOURCES, number) % len(networks)]


def of_each_image(recipe: Recipe, tensor: Tensor, count: int) -> Tensor:
    """What belongs to each image of a batch, for `count` images that attacks have made of them."""
    clean, attacked = tensor[: recipe.num_clean], tensor[recipe.num_clean :]
    if count == len(tensor):
        return tensor
    copies = (count - len(clean)) // len(attacked)
    return torch.cat([clean, *[attacked] * copies])


def whole(recipe: Recipe, batch: Batch) -> Batch:
    """The batch with labels, and natural images, for each of its images."""
    count = len(batch.images)
    natural = None if batch.natural is None else of_each_image(recipe, batch.natural, count)
    return replace(batch, labels=of_each_image(recipe, batch.labels, count), natural=natural)


def mixed(recipe: Recipe, number: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The ticket's images after CutMix, where that is asked for, and what they are to be taken for.

    That is a function of the labels, the images' shape and the ticket: it does not travel.
    """
    alpha = recipe.data.cutmix_alpha
    assert alpha is not None, "images are not mixed"
    return cut_mix(
        images,
        labels,
        alpha=alpha,
        num_classes=recipe.num_classes,
        seed=seed_for(recipe.seed, Purpose.MIXING, number),
    )


def state_on_the_wire(recipe: Recipe, model: nn.Module) -> FlatState:
    """A model's parameters and buffers as versions carry them."""
    return FlatState(model, WIRE_TENSORS[recipe.wire_dtype])


def climb_of(
    recipe: Recipe,
    attack: TicketAttack,
    model: nn.Module,
    execute: Executor,
    number: int,
    batch: Batch,
) -> Climb:
    """What the attack on a ticket climbs; not on the clean images at the front of its batch.

    `model` is the one being trained, or a copy of it.
    """
    assert batch.natural is not None
    source = recipe.source_of(number)
    if source is not None:
        model, execute = source, eagerly
    return Climb(
        model=model,
        precision=recipe.precision,
        loss=attack.loss,
        labels=batch.labels[recipe.num_clean :],
        targets=None if batch.targets is None else batch.targets[recipe.num_clean :],
        natural=batch.natural[recipe.num_clean :],
        natural_seed=seed_for(recipe.seed, Purpose.LAYERS, number),
        execute=execute,
    )
