"""What a simulation is asked and what it saw.

Parameters and batches are chained hashes of exactly what went into them, so that any deviation
changes the final value.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.tickets import AttackSettings, StalenessRule

TRAINER = 0
NEVER = float("inf")


def mixed(*parts: object) -> int:
    """A 64-bit hash of plain values."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A schedule to simulate; times in milliseconds of virtual time.

    `slowness` multiplies an attacker's times; `latency` and `broadcast` are the shortest and the
    longest time of a message; `overdue` is the time after which the trainer crafts a granted ticket
    again; `losses` tells when an attacker is lost; `changing_steps` lets every other version carry
    one attack step more.
    """

    rule: StalenessRule
    num_attackers: int
    training_steps: int = 60
    outstanding: int | None = 2
    mode: StalenessMode = StalenessMode.FIXED
    trainer_crafts: bool = True
    num_steps: int = 8
    changing_steps: bool = False
    attack_step: float = 18.5
    train: float = 20.0
    jitter: float = 0.0
    latency: tuple[float, float] = (1.0, 1.0)
    broadcast: tuple[float, float] = (3.0, 3.0)
    slowness: Mapping[int, float] = field(default_factory=dict)
    overdue: float = NEVER
    losses: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    stop_at: int | None = None

    @property
    def num_tickets(self) -> int:
        return self.training_steps * self.rule.tickets_per_step

    def settings_at(self, version: int) -> AttackSettings:
        more = self.changing_steps and (version // self.rule.publish_every) % 2
        return AttackSettings(num_steps=self.num_steps + int(more), epsilon=0.3 + version)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What an interrupted run goes on from: the step, its parameters, the published versions."""

    step: int = 0
    value: int = 1
    ring: Mapping[int, int] = field(default_factory=lambda: {0: 1})


@dataclass(frozen=True, kw_only=True)
class UsedStep:
    """An attack step that was run, and what the trainer's step was then."""

    ticket: int
    step: int
    version: int
    rank: int
    settings: AttackSettings


@dataclass(kw_only=True)
class Observed:
    """What a simulation saw; races are between a ticket's granted and its re-crafted copy."""

    consumed: list[int] = field(default_factory=list)
    used: dict[int, list[UsedStep]] = field(default_factory=dict)
    crafted_by: dict[int, int] = field(default_factory=dict)
    largest_ring: dict[int, int] = field(default_factory=dict)
    largest_charge: int = 0
    largest_charge_of_one: int = 0
    largest_live: int = 0
    recrafted: int = 0
    won_races: int = 0
    lost_races: int = 0
    dropped: int = 0
    crafted_anew: int = 0
    kept_waiting: int = 0
    returned: Counter[int] = field(default_factory=Counter)
    granted: Counter[int] = field(default_factory=Counter)
    step_ended: list[float] = field(default_factory=list)
    idle_by_step: list[float] = field(default_factory=list)
    credits_left_charged: int = 0
    checkpoint: Checkpoint | None = None
    value: int = 0
