"""What hypothesis draws: admissible rules and random schedules. The same ones on every run.

HYPOTHESIS_EXPLORE=10 draws ten times as many, others each time.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from scenario import NEVER, Scenario

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.tickets import StalenessRule

EXPLORE = int(os.environ.get("HYPOTHESIS_EXPLORE", "0"))

LARGEST_STALENESS = 40


def examples(number: int) -> Callable[[Any], Any]:
    """Settings of a property that is tried on `number` examples."""
    return settings(
        max_examples=number * max(1, EXPLORE),
        derandomize=not EXPLORE,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@st.composite
def rules(draw: st.DrawFn, largest_trainer_steps: int = 4) -> StalenessRule:
    """Every admissible rule up to a staleness of 40, with up to four tickets a step."""
    largest = draw(st.integers(0, LARGEST_STALENESS))
    final = draw(st.integers(0, largest))
    return StalenessRule(
        max_staleness=largest,
        final_staleness=final,
        publish_every=draw(st.integers(1, final + 1)),
        trainer_steps=draw(st.integers(0, largest_trainer_steps)),
        tickets_per_step=draw(st.sampled_from([1, 1, 2, 4])),
    )


TIMES = st.sampled_from([(0.0, 0.0), (0.5, 1.0), (0.0, 60.0), (0.0, 900.0)])
"""Shortest and longest time of a message: none, usual, as long as a few attack steps, chaos."""

FIXED = st.just(StalenessMode.FIXED)
SOMETIMES_OVERDUE = st.sampled_from([NEVER, NEVER, 0.0, 100.0, 400.0])


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    modes: st.SearchStrategy[StalenessMode] = FIXED,
    overdue: st.SearchStrategy[float] = SOMETIMES_OVERDUE,
) -> Scenario:
    """Random schedules of up to nine attackers, some far slower, some lost on the way."""
    num_steps = draw(st.integers(0, 12))
    num_attackers = draw(st.integers(0, 9))
    slow = draw(st.sets(st.integers(1, 9), max_size=3))
    lost = draw(st.sampled_from([set(), draw(st.sets(st.integers(1, 9), max_size=9))]))
    rule = draw(rules(largest_trainer_steps=min(4, num_steps)))
    return Scenario(
        rule=rule,
        num_attackers=num_attackers,
        training_steps=draw(st.integers(1, 60 // rule.tickets_per_step)),
        outstanding=draw(st.none() | st.integers(1, 4)),
        mode=draw(modes),
        trainer_crafts=draw(st.booleans()),
        num_steps=num_steps,
        changing_steps=draw(st.booleans()),
        attack_step=draw(st.sampled_from([1.0, 18.5, 200.0])),
        jitter=draw(st.sampled_from([0.0, 0.1, 0.9])),
        latency=draw(TIMES),
        broadcast=draw(TIMES),
        slowness={rank: 100.0 for rank in slow},
        overdue=draw(overdue),
        losses={rank: draw(st.sampled_from([0.0, 30.0, 500.0, 3000.0])) for rank in lost},
        seed=draw(st.integers(0, 2**32)),
    )
