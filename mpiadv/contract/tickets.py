"""Which ticket uses which samples, random numbers and parameters. Knows no MPI and no torch.

Ticket `n` is the n-th adversarial batch that training consumes. Everything about it is a pure
function of the configuration, so who crafts it, and when, is only a matter of speed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from mpiadv.contract.columns import column
from mpiadv.process.errors import UserError
from mpiadv.process.words import counted


class Purpose(IntEnum):
    """What a random stream is for; the values are part of the contract and never change."""

    ORDER = 0
    AUGMENTATION = 1
    START = 2
    DROPOUT = 3
    MODEL = 4
    EVALUATION = 5
    ATTACK_DROPOUT = 6
    SNAPSHOT = 7
    LAYERS = 8
    NEARBY = 9
    RAND_AUGMENT = 10
    MIXING = 11
    THREATS = 12
    SOURCES = 13


def seed_for(seed: int, purpose: Purpose, *index: int) -> int:
    """The 63-bit seed of the stream for `purpose` at `index` (a ticket, an epoch, ...)."""
    state = np.random.SeedSequence([seed, purpose, *index]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def pass_seed(seed: int, number: int) -> int:
    """Of what a model draws in forward pass `number` of a piece of work that `seed` is of."""
    return seed_for(seed, Purpose.LAYERS, number)


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """Which samples ticket `n` holds: a row of the permutation of its epoch.

    The last, incomplete batch of an epoch is dropped.
    """

    seed: int
    num_samples: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.num_samples:
            raise UserError(
                f"batch_size={self.batch_size} does not fit {self.num_samples} training samples: "
                f"use 1 <= batch_size <= {self.num_samples}"
            )

    @property
    def batches_per_epoch(self) -> int:
        return self.num_samples // self.batch_size

    def indices(self, ticket: int) -> npt.NDArray[np.int64]:
        """Indices of the samples of `ticket`: int64 [batch_size]."""
        epoch, row = divmod(ticket, self.batches_per_epoch)
        start = row * self.batch_size
        return _permutation(self.seed, epoch, self.num_samples)[start : start + self.batch_size]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed_for(seed, Purpose.ORDER, epoch))
    return rng.permutation(num_samples)


def choose_samples(num_samples: int, wanted: int | None) -> npt.NDArray[np.int64]:
    """Indices of the samples that stand for all `num_samples` where only `wanted` are taken.

    The first of one frozen permutation, as data sets may be sorted by class: which they are depends
    on `num_samples` alone, and those of a smaller choice come first in a larger one. None, or
    `wanted` beyond the end, means all, in their own order.
    """
    if wanted is None or wanted >= num_samples:
        return np.arange(num_samples, dtype=np.int64)
    return _frozen_permutation(num_samples)[:wanted]


@lru_cache(maxsize=4)
def _frozen_permutation(num_samples: int) -> npt.NDArray[np.int64]:
    # RandomState: its stream is frozen, that of numpy's newer generators may change.
    return np.random.RandomState(1).permutation(num_samples).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """What the trainer decides when it publishes a version, carried in the same message."""

    num_steps: int = column("i4", "attack steps of the batch", name="attack_steps")
    epsilon: float = column("f8", "radius of the attack's ball, pixels of [0, 1]")
    tau: int = column(
        "i4",
        "attack steps that an image takes although it is misclassified, in friendly attacks",
        name="attack_tau",
        default=0,
    )


@dataclass(frozen=True, kw_only=True)
class StalenessRule:
    """Which version of the parameters attack step `j` of ticket `n` uses.

    A version is named by the number of training steps behind it. Staleness is the step that trains
    on the ticket less that; it never exceeds `max_staleness`, and that of the last attack step run
    by the crafting rank, be it the only one, never `final_staleness`. The last `trainer_steps`
    attack steps run on the trainer with its current parameters, when it consumes the ticket.

    Several trainers share out the tickets of each step evenly, each with a team of its own. A team
    counts its own tickets alone, from 0 on: `number` says which of all tickets one of them is.

    Raises:
        UserError: the numbers would deadlock or make no sense.
    """

    max_staleness: int
    final_staleness: int
    publish_every: int
    trainer_steps: int = 0
    tickets_per_step: int = 1
    """Of all teams."""
    team: int = 0
    num_teams: int = 1

    def __post_init__(self) -> None:
        largest, final, every = self.max_staleness, self.final_staleness, self.publish_every
        if every < 1 or min(largest, final, self.trainer_steps) < 0:
            raise UserError(
                f"publish_every={every}, max_staleness={largest}, final_staleness={final}, "
                f"trainer_steps={self.trainer_steps}: expected publish_every >= 1 and the others "
                ">= 0"
            )
        if final > largest:
            raise UserError(
                f"final_staleness={final} exceeds max_staleness={largest}: {self._remedies()}"
            )
        if every - 1 > final:
            raise UserError(
                f"publish_every={every} cannot hold final_staleness={final}: {self._remedies()}"
            )

    def _remedies(self) -> str:
        """The numbers that would work, by lowering and by raising; each names all it changes."""
        largest, final, every = self.max_staleness, self.final_staleness, self.publish_every
        lower, higher = min(final, largest), max(final, every - 1)
        lowered = [
            (f"final_staleness <= {lower}", lower < final),
            (f"publish_every <= {lower + 1}", lower + 1 < every),
        ]
        raised = [
            (f"final_staleness >= {higher}", higher > final),
            (f"max_staleness >= {higher}", higher > largest),
        ]
        ways = (
            " and ".join(text for text, is_needed in way if is_needed) for way in (lowered, raised)
        )
        return f"use {' or '.join(ways)}"

    @property
    def window(self) -> int:
        """How many tickets may be live (granted or crafted, not yet consumed) at once."""
        return (self.max_staleness + 1) * self.team_tickets

    def of_team(self, team: int, num_teams: int) -> "StalenessRule":
        """The rule of one of several teams, which share out the tickets of each step evenly."""
        return replace(self, team=team, num_teams=num_teams)

    @cached_property
    def team_tickets(self) -> int:
        """How many tickets of each training step are the team's."""
        return self.tickets_per_step // self.num_teams

    def number(self, ticket: int) -> int:
        """Which of the tickets of all teams a ticket of this team is."""
        step, place = divmod(ticket, self.team_tickets)
        return step * self.tickets_per_step + self.team * self.team_tickets + place

    def step_of(self, ticket: int) -> int:
        """The training step that consumes a ticket: so many are done before it."""
        return ticket // self.team_tickets

    def ends_step(self, ticket: int) -> bool:
        """Whether a ticket is the team's last one of its training step."""
        return (ticket + 1) % self.team_tickets == 0

    @property
    def num_versions(self) -> int:
        """How many published versions a live ticket may still need at any time."""
        return self.max_staleness // self.publish_every + 1

    def crafting_steps(self, num_steps: int) -> int:
        """How many of a ticket's attack steps the crafting rank runs."""
        return max(0, num_steps - self.trainer_steps)

    def lag(self, step: int, num_steps: int) -> int:
        """The largest staleness that attack step `step` (0-based) of `num_steps` may have."""
        last = self.crafting_steps(num_steps) - 1
        if step > last:
            return 0
        if last == 0:
            return self.final_staleness
        return self.max_staleness - (self.max_staleness - self.final_staleness) * step // last

    def version(self, ticket: int, step: int, num_steps: int) -> int:
        """The version that attack step `step` of `ticket` uses in `fixed` mode."""
        trained = self.step_of(ticket)
        if step >= self.crafting_steps(num_steps):
            return trained
        return self._round_up(trained - self.lag(step, num_steps))

    def first_version(self, ticket: int) -> int:
        """The version that carries the ticket's attack settings: the oldest that it may use.

        That of its first attack step, except where only one is crafted, or none.
        """
        return self._oldest(self.step_of(ticket))

    def _oldest(self, step: int) -> int:
        return self._round_up(step - self.max_staleness)

    def not_needed(self, versions: Iterable[int], step: int) -> list[int]:
        """Those of `versions` that no ticket from training step `step` on uses."""
        oldest = self._oldest(step)
        return [version for version in versions if version < oldest]

    def newest_startable(self, step: int) -> int:
        """The newest ticket whose first version is published when the trainer is at `step`."""
        newest_step = step - step % self.publish_every + self.max_staleness
        return (newest_step + 1) * self.team_tickets - 1

    def is_published(self, step: int) -> bool:
        """Whether the trainer publishes its parameters when it reaches `step`."""
        return step % self.publish_every == 0

    def require_steps_for_trainer(self, num_steps: int) -> None:
        """Refuse a rule by which the trainer runs more attack steps than a ticket has.

        Raises:
            UserError: it does.
        """
        if self.trainer_steps > num_steps:
            raise UserError(
                f"staleness.trainer_steps={self.trainer_steps} is more than the attack's "
                f"{counted(num_steps, 'step')}: use staleness.trainer_steps <= {num_steps}"
            )

    def verify(self, ticket: int, *, first: int, last: int, num_steps: int, exact: bool) -> None:
        """Check the versions that a crafted ticket says it used.

        One of which no step is crafted has used none, and says so by its training step.

        Raises:
            AssertionError: they break a bound, or with `exact` differ from the rule. This cannot
                happen; if it does, the run must not go on.
        """
        last_step = max(0, self.crafting_steps(num_steps) - 1)
        oldest = tuple(self.version(ticket, step, num_steps) for step in (0, last_step))
        within = oldest[0] <= first <= last <= self.step_of(ticket) and oldest[1] <= last
        if not within or (exact and (first, last) != oldest):
            raise AssertionError(
                f"ticket {ticket} was crafted on versions {first} to {last}; "
                f"the rule says {oldest[0]} to {oldest[1]}: {self}"
            )

    def _round_up(self, version: int) -> int:
        return -(-max(0, version) // self.publish_every) * self.publish_every
