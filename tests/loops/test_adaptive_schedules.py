"""Attack settings that depend on all that was trained: the same for whoever crafted, and whenever.

The schedule chains hashes of what it hears, so that a step heard twice, late or not at all changes
all that follows: the number of attack steps, from none to five, and the radius.
"""

from dataclasses import replace
from typing import Any

import pytest
from fake_work import adaptive_values
from in_memory_job import Job, JobShape
from job_shapes import SHARES, disturbed, each_shape, left_over, seeds_of, step_at
from scenario import mixed

from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.attack_schedules import TrainedStep


class Chained:
    """Settings by a hash of every step that it heard."""

    hears_gradient = True

    def __init__(self) -> None:
        self.value = 0

    def hear(self, trained: TrainedStep) -> None:
        self.value = mixed(self.value, trained)

    def settings(self, step: int) -> AttackSettings:
        return AttackSettings(num_steps=self.value % 6, epsilon=float(self.value >> 11))

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state.get("value", 0)


def expected(shape: JobShape) -> int:
    return adaptive_values(shape.rule, shape.training_steps, Chained())[-1]


@pytest.mark.parametrize("num_attackers", [0, 1, 4])
@each_shape
def test_settings_that_depend_on_the_training_give_the_bits_of_the_definition(
    shape: JobShape, num_attackers: int
) -> None:
    for seed in seeds_of(shape):
        job = Job(disturbed(shape, num_attackers, seed), attack_schedule=Chained()).run()
        assert job.learner.value == expected(shape)
        assert len({record.origin.settings.num_steps for record in job.records}) > 2
        assert left_over(job) == 0


@pytest.mark.parametrize("share", SHARES)
@each_shape
def test_interrupted_job_goes_on_with_the_settings_it_would_have_had(
    shape: JobShape, share: float
) -> None:
    stop_at = step_at(shape, share)
    stopping = replace(disturbed(shape, 3, seed=stop_at), stop_at=stop_at)
    stopped = Job(stopping, attack_schedule=Chained()).run()
    for num_attackers in (0, 4):
        going_on = disturbed(shape, num_attackers, seed=stop_at + 1)
        job = Job(going_on, stopped.saved, attack_schedule=Chained()).run()
        assert job.learner.value == expected(shape)


@each_shape
def test_probes_follow_the_settings_of_their_tickets_and_leave_the_bits(shape: JobShape) -> None:
    for num_attackers in (0, 3):
        probing = replace(disturbed(shape, num_attackers, 1), fresh_every=shape.rule.publish_every)
        job = Job(probing, attack_schedule=Chained()).run()
        assert job.learner.value == expected(shape)
        assert len(job.probes) > 1
