"""What a forecast needs to know of a job and of the network, and how fast a job can be at best."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, inf

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.teams import Layout, place_teams
from mpiadv.contract.tickets import StalenessRule
from mpiadv.contract.turns import USUAL_CREDIT

COPIED_BYTES_PER_SECOND = 1e10
"""What is usual within a host, and from a GPU to its host."""


CARRIED_SHARE = 0.88
"""Of a link's bits per second, what messages get of them: headers, and pauses between two looks at
messages, take the rest. As measured between emulated hosts, see docs/clusters.md."""


EXCHANGED_SHARE = 0.66
"""Of a link's bits per second in each direction, what sums over trainers get of them, which pass in
both at once, and move on between two looks at messages. As measured between emulated hosts."""

COPIES_OF_SUM, SUMMED_BYTES_PER_SECOND = 4, 6e9
"""How often what is added is copied or added up in a step, on its way out of the gradients and
back, and how fast a core does that."""

LATENCIES_OF_ROUND = 3
"""Of two messages to and from each other: they are announced and asked for before they come."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job on ranks that each have a device of their own; all times in seconds."""

    rule: StalenessRule
    num_attack_steps: int
    """Of a ticket, those of the trainer included."""
    craft_seconds: float
    """An attacker's time for a batch: all attack steps but the trainer's."""
    train_seconds: float
    """The trainer's time for a batch: its own attack steps and the training step."""
    num_steps: int
    outstanding: int | None
    """Tickets that an attacker may have; None: by its speed."""
    mode: StalenessMode = StalenessMode.FIXED
    trainer_crafts: bool = True
    version_bytes: int = 0
    """Of a published version, on the wire."""
    batch_bytes: int = 0
    """Of a crafted batch, on the wire."""
    sum_bytes: int = 0
    """Of what a trainer's tickets of a step come to, where several trainers add it."""
    leaves_host_free: bool = True
    """Whether a device works while its host copies parameters, as a GPU does."""
    step_overhead_seconds: float = 0.0
    """The trainer's own time beside the work, per training step: messages, decisions, the log."""
    jitter: float = 0.1
    """Attack and training steps take up to this share less or more, evenly."""
    slowness: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Rank to how many times the usual its attack steps take; ranks left out take once. Not to be
    changed: forecasts are remembered."""
    seed: int = 0

    @property
    def credit(self) -> int:
        """Most tickets of an attacker where all are equally fast."""
        return self.outstanding or USUAL_CREDIT

    @property
    def crafting_steps(self) -> int:
        """Attack steps of a ticket that the crafting rank runs."""
        return self.rule.crafting_steps(self.num_attack_steps)

    @property
    def attack_step_seconds(self) -> float:
        return self.craft_seconds / max(1, self.crafting_steps)

    @property
    def snapshot_seconds(self) -> float:
        """From a training step to the moment when the version behind it can be sent."""
        return self.version_bytes / COPIED_BYTES_PER_SECOND

    @property
    def trainer_seconds(self) -> float:
        """What a batch takes of its trainer's time, all in all."""
        return self.train_seconds + self._seconds_of_step / self.rule.team_tickets

    @property
    def _seconds_of_step(self) -> float:
        """What a step takes of a trainer's time beside its batches."""
        copying = 0.0 if self.leaves_host_free else self.snapshot_seconds
        return self.step_overhead_seconds + copying / self.rule.publish_every

    @property
    def alone_seconds(self) -> float:
        """A training step on one rank, which crafts and trains in turn."""
        batches = self.rule.tickets_per_step * (self.craft_seconds + self.train_seconds)
        return batches + self._seconds_of_step

    @property
    def feeding_attackers(self) -> int:
        """How many attackers craft as many batches as their trainer can train on."""
        # A shortfall of a thousandth of an attacker is rounding.
        return ceil(self.craft_seconds / self.trainer_seconds - 1e-3)

    def ideal_speed_up(self, team_ranks: int) -> float:
        """Where the smallest team, which sets the pace, has so many ranks."""
        return self.rule.num_teams * ideal_speed_up(
            team_ranks,
            self.trainer_seconds,
            self.craft_seconds,
            trainer_crafts=self.trainer_crafts,
        )


@dataclass(frozen=True, kw_only=True)
class Network:
    """How ranks reach each other: memory within a host, one link of the trainer's host beyond.

    Ranks fill one host after the other. The link is as fast in both directions at once.
    """

    ranks_per_host: int | None = None
    """None: all on one host."""
    bytes_per_second: float = inf
    latency_seconds: float = 0.0
    """One way, between hosts."""

    def is_remote(self, rank: int) -> bool:
        """Whether messages between the trainer and this rank take the link."""
        return self.host_of(rank) > 0

    def host_of(self, rank: int) -> int:
        """Its number, 0 being the trainer's."""
        return 0 if self.ranks_per_host is None else rank // self.ranks_per_host

    @staticmethod
    def num_sendings(num_hosts: int) -> int:
        """How often a broadcast to the leaders of so many hosts in all leaves the trainer's."""
        return (num_hosts - 1).bit_length()

    def num_hosts(self, ranks: int) -> int:
        return len(self.host_sizes(ranks))

    def team_sizes(self, ranks: int, trainers: int) -> list[int]:
        """How many of so many ranks each trainer's team has."""
        if trainers == 1:
            return [ranks]
        hosts = [str(self.host_of(rank)) for rank in range(ranks)]
        return list(map(len, place_teams(hosts, trainers, Layout.HOSTS)))

    def exchange_seconds(self, num_bytes: int, ranks: int, trainers: int) -> float:
        """What the sum of so many bytes over all trainers takes, by recursive halving.

        Each trainer packs, adds and unpacks its own; those of a host share its link.
        """
        hosts = min(self.num_hosts(ranks), trainers)
        crossing = self.exchanged_bytes(num_bytes, ranks, trainers)
        rounds = 2 * (hosts - 1).bit_length()
        return (
            COPIES_OF_SUM * num_bytes / SUMMED_BYTES_PER_SECOND
            + crossing / (EXCHANGED_SHARE * self.bytes_per_second)
            + rounds * LATENCIES_OF_ROUND * self.latency_seconds
        )

    def exchanged_bytes(self, num_bytes: int, ranks: int, trainers: int) -> float:
        """What of such a sum leaves each host on which somebody trains, and comes to it."""
        hosts = min(self.num_hosts(ranks), trainers)
        return 2 * num_bytes * (1 - 1 / hosts)

    def host_sizes(self, ranks: int) -> list[int]:
        """How many of so many ranks each host has, the trainer's first."""
        full = self.ranks_per_host or ranks
        return [min(full, ranks - first) for first in range(0, ranks, full)]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a simulated job showed, once it ran evenly."""

    ranks: int
    step_seconds: float
    """From one training step to the next."""
    training_seconds: float
    """The whole job's, evaluation and checkpoints aside."""
    trainer_idle: float
    """Share of the time in which the trainer waited, 0 to 1."""
    attackers_idle: float
    """The attackers' mean share; 0 without any."""
    first_staleness: float
    """Mean staleness at the first attack step."""
    last_staleness: float
    """Mean staleness at the last attack step that the crafting rank ran."""
    sent_bytes: float
    """Parameters that left the trainer's host, per training step."""
    received_bytes: float
    """Batches that came to the trainer's host, per training step."""
    recrafted: int
    """Tickets that were overdue and crafted again."""


def ideal_speed_up(
    ranks: float, train_seconds: float, craft_seconds: float, *, trainer_crafts: bool = True
) -> float:
    """Largest possible speed-up over one rank, which crafts and trains in turn.

    The trainer has to train on every batch, which limits many ranks. Few are limited by their
    number where the trainer crafts, too, and by that of the attackers where it does not. A slower
    attacker counts as a part of a rank.
    """
    alone = craft_seconds + train_seconds
    most = alone / train_seconds
    if trainer_crafts or ranks == 1 or craft_seconds == 0.0:
        return min(ranks, most)
    return min((ranks - 1) * alone / craft_seconds, most)
