"""An emulated machine and job, and what one run of it measured. Knows no MPI, no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mpiadv.tickets import StalenessRule


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An emulated machine and job: how long work takes, how large messages are, how stale."""

    train_seconds: float
    """Emulated: one training step."""
    craft_seconds: float
    """Emulated: one batch, all its attack steps."""
    num_attack_steps: int
    num_parameters: int
    """Float32 values of a version."""
    batch_size: int
    image_values: int
    """Float32 values of an image."""
    max_staleness: int
    final_staleness: int
    publish_every: int
    outstanding: int
    warmup_steps: int
    """Training steps before the measured ones."""
    measured_steps: int
    poll_seconds: float
    """Longest pause between two looks at the messages while a device is busy."""
    trainer_crafts: bool = True
    """Whether the trainer crafts while the attackers cannot feed it; alone it always does."""

    @property
    def rule(self) -> StalenessRule:
        """The ticket rule."""
        return StalenessRule(
            max_staleness=self.max_staleness,
            final_staleness=self.final_staleness,
            publish_every=self.publish_every,
        )

    def ideal(self, ranks: int) -> float:
        """Largest possible speed-up over one rank; see `ideal_speed_up`."""
        return ideal_speed_up(
            ranks, self.train_seconds, self.craft_seconds, trainer_crafts=self.trainer_crafts
        )


def ideal_speed_up(
    ranks: int, train_seconds: float, craft_seconds: float, *, trainer_crafts: bool = True
) -> float:
    """Largest possible speed-up over one rank, which crafts and trains in turn.

    The trainer has to train on every batch, which limits many ranks. Few are limited by their
    number where the trainer crafts, too, and by that of the attackers where it does not.
    """
    alone = craft_seconds + train_seconds
    most = alone / train_seconds
    if trainer_crafts or ranks == 1:
        return min(ranks, most)
    return min((ranks - 1) * alone / craft_seconds, most)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run, warm-up excluded. Shares are of wall-clock time, 0 to 1."""

    ticket_seconds: float
    """Wall-clock seconds per ticket."""
    idle: float
    """Share of the trainer's time in which it waited for a batch."""
    late: float
    """Share of the trainer's time in which its device was done and it had not noticed."""
    parameter_wait: float
    """Share of the attackers' time in which they waited for parameters on their way."""
    trainer_wait: float
    """Share of the attackers' time in which they waited for parameters yet to be published."""
    grant_wait: float
    """Share of the attackers' time in which they had no ticket."""
    first_staleness: tuple[float, int]
    """Mean and worst over tickets, at the first attack step."""
    last_staleness: tuple[float, int]
    """Mean and worst over tickets, at the last attack step."""
    own_seconds: float
    """The trainer's CPU seconds per ticket outside emulated work and the copies counted below."""
    copy_seconds: float
    """The trainer's CPU seconds per ticket for snapshots and for taking batches out of messages."""
    poll_seconds: float
    """The trainer's CPU seconds per ticket moving messages while its device was busy."""
    cores: float
    """CPU seconds of all ranks, divided by wall-clock seconds times cores; warm-up included."""
    others: float
    """The same of everything else on the machine."""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
