"""By what every ticket is made: what crafting and training need of the configuration. No MPI."""

from dataclasses import dataclass

from torch import Tensor, nn

from mpiadv.attacks import Attack, Climb
from mpiadv.comm.messages import WireDtype
from mpiadv.contract.tickets import Purpose, SampleOrder, StalenessRule, seed_for
from mpiadv.data.mixing import cut_mix
from mpiadv.methods.objective import Batch
from mpiadv.models import FlatState
from mpiadv.models.execution import Executor
from mpiadv.settings import AttackConfig, DataConfig, MemoryFormat, Precision
from mpiadv.work.rounding import WIRE_TENSORS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The same on every rank."""

    seed: int
    rule: StalenessRule
    order: SampleOrder
    data: DataConfig
    attack: AttackConfig
    precision: Precision
    memory_format: MemoryFormat
    num_clean: int
    num_classes: int
    natural_every: int
    keep_natural: bool
    keep_misses: bool
    draw_nearby: bool
    wire_dtype: WireDtype


def mixed(recipe: Recipe, ticket: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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
        seed=seed_for(recipe.seed, Purpose.MIXING, ticket),
    )


def state_on_the_wire(recipe: Recipe, model: nn.Module) -> FlatState:
    """A model's parameters and buffers as versions carry them."""
    return FlatState(model, WIRE_TENSORS[recipe.wire_dtype])


def climb_of(
    recipe: Recipe, attack: Attack, model: nn.Module, execute: Executor, ticket: int, batch: Batch
) -> Climb:
    """What the attack on a ticket climbs; not on the clean images at the front of its batch."""
    assert batch.natural is not None
    return Climb(
        model=model,
        precision=recipe.precision,
        loss=attack.loss,
        labels=batch.labels[recipe.num_clean :],
        targets=None if batch.targets is None else batch.targets[recipe.num_clean :],
        natural=batch.natural[recipe.num_clean :],
        natural_seed=seed_for(recipe.seed, Purpose.LAYERS, ticket),
        execute=execute,
    )
