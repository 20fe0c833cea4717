"""Jobs in memory of every kind, with what they are to end with, for tests."""

from dataclasses import replace

import pytest
from fake_work import sequential_value
from in_memory_job import Job, JobShape

from mpiadv.contract.tickets import StalenessRule


def rule(
    largest: int, final: int, every: int, trainer_steps: int = 0, *, tickets_per_step: int = 1
) -> StalenessRule:
    return StalenessRule(
        max_staleness=largest,
        final_staleness=final,
        publish_every=every,
        trainer_steps=trainer_steps,
        tickets_per_step=tickets_per_step,
    )


SHAPES = {
    "synchronous": JobShape(rule=rule(0, 0, 1), num_attackers=0),
    "constant": JobShape(rule=rule(8, 8, 4), num_attackers=0, outstanding=3),
    "refreshed": JobShape(rule=rule(16, 4, 4), num_attackers=0, outstanding=None),
    "fresh": JobShape(rule=rule(5, 1, 1), num_attackers=0, outstanding=1),
    "old": JobShape(rule=rule(24, 6, 7), num_attackers=0, outstanding=4),
    "trainer_steps": JobShape(rule=rule(12, 3, 2, 2), num_attackers=0),
    "all_steps_on_the_trainer": JobShape(rule=rule(4, 2, 3, 5), num_attackers=0),
    "one_attack_step": JobShape(rule=rule(6, 2, 3), num_attackers=0, num_steps=1),
    "two_tickets_a_step": JobShape(
        rule=rule(6, 2, 2, tickets_per_step=2),
        num_attackers=0,
        outstanding=None,
        training_steps=24,
    ),
    "synchronous_tickets_of_a_step": JobShape(
        rule=rule(0, 0, 1, 1, tickets_per_step=4), num_attackers=0, training_steps=16
    ),
    "many_tickets_a_step": JobShape(
        rule=rule(3, 1, 1, tickets_per_step=8), num_attackers=0, training_steps=12
    ),
    "no_attack": JobShape(rule=rule(6, 6, 1), num_attackers=0, num_steps=0),
}
"""Of 40 tickets and more; where a step takes several, of so few steps that there are no 100."""
TROUBLES = {
    "steady": {},
    "one_slow": {"slow": frozenset({2})},
    "hanging": {"hang_share": 0.03, "slow": frozenset({1, 3})},
}
"""What a seed troubles attackers with, in turn."""
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def disturbed(shape: JobShape, num_attackers: int, seed: int) -> JobShape:
    """`shape` with attackers, and the trouble that belongs to the seed."""
    trouble = list(TROUBLES.values())[seed % len(TROUBLES)]
    return replace(shape, num_attackers=num_attackers, seed=seed, **trouble)  # type: ignore[arg-type]


def seeds_of(shape: JobShape) -> range:
    """Seeds of one kind of trouble each; they differ from shape to shape, as do hosts and networks.

    They go by the place of `shape` in `SHAPES`: a new one belongs at their end.
    """
    first = [*SHAPES.values()].index(shape)
    return range(first, first + len(TROUBLES))


def expected(shape: JobShape) -> int:
    return sequential_value(shape.rule, shape.training_steps, shape.settings_at)


def left_over(job: Job) -> int:
    """Messages in any queue of the network, but for words that came too late to matter."""
    tagged = job.network.queues.values()
    late = sum(job.link._unanswered[attacker] for attacker in job.link.attackers)
    return sum(len(queue) for queues in tagged for queue in queues.values()) - late


def step_at(shape: JobShape, share: float) -> int:
    """The training step after such a share of all: 0 after none, else 1 or later."""
    return max(1, round(share * shape.training_steps)) if share else 0


SHARES = (0.03, 0.18, 0.4, 0.83)
"""Of the way through a job: where it is interrupted."""
