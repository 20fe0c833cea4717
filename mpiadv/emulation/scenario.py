"""An emulated machine and job, and how fast it can be at best. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Self

from mpiadv.comm.messages import WIRE_ARRAYS, WireDtype
from mpiadv.contract.tickets import StalenessRule
from mpiadv.forecast.job import ideal_speed_up

WARMUP_STEPS_OF_A_RANK = 5


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An emulated machine and job: how long work takes, how large messages are, how stale."""

    train_seconds: float
    """Emulated: one training step."""
    craft_seconds: float
    """Emulated: one batch, all its attack steps."""
    num_attack_steps: int
    num_parameters: int
    """Values of a version."""
    batch_size: int
    image_values: int
    """Values of an image."""
    max_staleness: int
    final_staleness: int
    publish_every: int
    outstanding: int | None
    """Most tickets of an attacker; None: by its speed."""
    warmup_steps: int
    """Training steps before the measured ones; both are counted in tickets until `sized_for`."""
    measured_steps: int
    poll_seconds: float
    """Longest pause between two looks at the messages while a device is busy."""
    trainer_crafts: bool = True
    """Whether the trainer crafts while the attackers cannot feed it; alone it always does."""
    wire_dtype: WireDtype = "float32"
    """Type of the values of versions and images in messages."""
    slowness: Sequence[float] = (1.0,)
    """How many times `craft_seconds` the attackers take, in turn; the trainer takes it once."""
    tickets_per_step: int = 1
    trainers: int = 1

    @property
    def rule(self) -> StalenessRule:
        """That of the first team."""
        return StalenessRule(
            tickets_per_step=self.tickets_per_step,
            num_teams=self.trainers,
            max_staleness=self.max_staleness,
            final_staleness=self.final_staleness,
            publish_every=self.publish_every,
        )

    @property
    def value_bytes(self) -> int:
        return WIRE_ARRAYS[self.wire_dtype].itemsize

    def sized_for(self, ranks: int) -> Self:
        """The same, as long as so many ranks need it to be.

        Few ranks take long for a step, and vary less; many need longer until all are at work.
        """
        tickets = self.measured_steps * min(ranks, 4) // 4
        warmup = self.warmup_steps + WARMUP_STEPS_OF_A_RANK * ranks
        return replace(
            self,
            measured_steps=max(4, tickets // self.tickets_per_step),
            warmup_steps=ceil(warmup / self.tickets_per_step),
        )

    def slowness_of(self, rank: int) -> float:
        return 1.0 if rank == 0 else self.slowness[(rank - 1) % len(self.slowness)]

    def ideal(self, ranks: int) -> float:
        as_good_as = sum(1 / self.slowness_of(rank) for rank in range(ranks // self.trainers))
        return self.trainers * ideal_speed_up(
            as_good_as, self.train_seconds, self.craft_seconds, trainer_crafts=self.trainer_crafts
        )
