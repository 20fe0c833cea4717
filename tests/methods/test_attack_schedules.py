"""Attack schedules: the M+ rule on its authors' numbers, and against a few lines of its own."""

from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from m_plus import plain_m_plus

from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.attack_schedules import (
    AttackSchedule,
    Ground,
    TrainedStep,
    make_attack_schedule,
)
from mpiadv.process.errors import UserError
from mpiadv.settings import AttackConfig, AttackScheduleConfig


@dataclass(frozen=True)
class Taken:
    """Of an attack: its steps."""

    num_steps: int
    step_size: float


def schedule_of(
    *,
    attack: AttackConfig | None = None,
    batches_per_epoch: int = 3,
    training_steps: int = 12,
    tickets_per_step: int = 1,
    takes: int | None = None,
    **config: object,
) -> AttackSchedule:
    """A schedule over an attack that takes the published number of steps, or always `takes`."""
    attack = attack or AttackConfig(epsilon=0.3, num_steps=8, step_size=0.4)

    def steps_of(settings: AttackSettings) -> Taken:
        size = attack.step_size or 2.5 * settings.epsilon / max(1, settings.num_steps)
        return Taken(settings.num_steps if takes is None else takes, size)

    return make_attack_schedule(
        Ground(
            config=AttackScheduleConfig(**config),  # type: ignore[arg-type]
            attack=attack,
            steps_of=steps_of,
            batches_per_epoch=batches_per_epoch,
            training_steps=training_steps,
            tickets_per_step=tickets_per_step,
        )
    )


def hear(schedule: AttackSchedule, magnitudes: list[float], first_step: int = 0) -> list[int]:
    """The number of attack steps before each training step and after the last."""
    told = []
    for step, magnitude in enumerate(magnitudes, first_step):
        settings = schedule.settings(step)
        told.append(settings.num_steps)
        heard = TrainedStep(step=step, settings=settings, gradient_magnitude=magnitude)
        schedule.hear(heard)
    return [*told, schedule.settings(first_step + len(magnitudes)).num_steps]


def test_m_plus_grows_as_in_the_authors_log() -> None:
    schedule = schedule_of(name="m_plus", first_steps=1, gamma=1.01, batches_per_epoch=1)
    steps = hear(schedule, [5175.44, 3084.11, 3206.21, 2768.19])
    assert steps[:4] == [1, 2, 2, 3]
    assert schedule.state_dict() == {"num_steps": 3, "threshold": 1.01 * 3206.21, "magnitude": 0.0}


magnitudes = st.lists(
    st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1.01]), min_size=0, max_size=60
)


@given(magnitudes, st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.9, 1.01, 1.1]))
def test_m_plus_follows_the_rule_whatever_the_magnitudes(
    given_magnitudes: list[float], first: int, more: int, gamma: float
) -> None:
    schedule = schedule_of(
        name="m_plus", first_steps=first, gamma=gamma,
        attack=AttackConfig(epsilon=0.3, num_steps=first + more, step_size=0.3),
    )  # fmt: skip
    whole = given_magnitudes[: len(given_magnitudes) // 3 * 3]
    sums = [a + b + c for a, b, c in zip(*[iter(whole)] * 3, strict=True)]
    expected = plain_m_plus(sums, first=first, most=first + more, gamma=gamma)
    assert hear(schedule, whole) == [n for n in expected[:-1] for _ in range(3)] + expected[-1:]


@given(magnitudes, st.integers(0, 60))
def test_interrupted_and_resumed_m_plus_says_the_same(heard: list[float], stop: int) -> None:
    stop = min(stop, len(heard))
    first, second = (schedule_of(name="m_plus") for _ in range(2))
    before = hear(first, heard[:stop])
    second.load_state_dict(first.state_dict())
    assert before[:-1] + hear(second, heard[stop:], stop) == hear(schedule_of(name="m_plus"), heard)


CLIMBS = {
    "steps_of_a_fixed_size_until_they_reach_the_border": (0.1, [0, 1, 2, 3, 3]),
    "steps_that_leave_a_rest_once_more": (0.09, [0, 1, 2, 3, 4]),
    "steps_relative_to_their_number_reach_it_at_once": (None, [0, 1, 1, 1, 1]),
}


@pytest.mark.parametrize(("step_size", "steps"), CLIMBS.values(), ids=CLIMBS)
def test_m_plus_that_begins_with_no_steps_grows_until_they_reach_the_border(
    step_size: float | None, steps: list[int]
) -> None:
    attack = AttackConfig(epsilon=0.3, num_steps=4, step_size=step_size)
    schedule = schedule_of(name="m_plus", attack=attack, batches_per_epoch=1)
    assert hear(schedule, [4.0, 3.0, 2.0, 1.0]) == steps


def test_m_plus_does_not_grow_by_epochs_of_a_step_more_than_others() -> None:
    """Epochs of five tickets, steps of two: three steps, two, three, two, ..."""
    schedule = schedule_of(
        name="m_plus", first_steps=1, batches_per_epoch=5, tickets_per_step=2
    )  # fmt: skip
    assert hear(schedule, [1.0] * 15) == [1, 1, 1] + [2] * 13
    louder = schedule_of(name="m_plus", first_steps=1, batches_per_epoch=5, tickets_per_step=2)
    assert hear(louder, [1.0] * 5 + [1.1] * 5)[-1] == 3


def test_m_plus_never_has_more_steps_than_the_attack() -> None:
    attack = AttackConfig(epsilon=0.3, num_steps=2, step_size=0.1)
    schedule = schedule_of(name="m_plus", attack=attack, batches_per_epoch=1)
    assert hear(schedule, list(accumulate([1.0] * 6))) == [0, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", ["constant", "piecewise", "m_plus"])
def test_epsilon_grows_over_the_warm_up(name: str) -> None:
    attack = AttackConfig(epsilon=0.3, num_steps=4, epsilon_warmup_steps=4)
    schedule = schedule_of(name=name, attack=attack, first_steps=1)
    epsilons = [schedule.settings(step).epsilon for step in range(6)]
    assert epsilons == [0.25 * 0.3, 0.5 * 0.3, 0.75 * 0.3, 0.3, 0.3, 0.3]


def test_pieces_begin_at_their_training_steps() -> None:
    schedule = schedule_of(
        name="piecewise", first_steps=2, milestones=[2, 5, 6], later_steps=[3, 8, 0]
    )
    assert hear(schedule, [1.0] * 7) == [2, 2, 3, 3, 3, 8, 0, 0]
    assert schedule.state_dict() == {} and not schedule.hears_gradient


def test_pieces_may_have_a_tau_of_their_own() -> None:
    attack = AttackConfig(name="friendly", num_steps=8, tau=4)
    pieces = {"name": "piecewise", "milestones": [2, 5], "later_steps": [3, 8], "first_steps": 8}
    schedule = schedule_of(attack=attack, **pieces, later_tau=[0, 1])
    assert [schedule.settings(step).tau for step in range(6)] == [4, 4, 0, 0, 0, 1]
    schedule = schedule_of(attack=attack, **pieces)
    assert [schedule.settings(step).tau for step in range(6)] == [4] * 6


@pytest.mark.parametrize("name", ["constant", "amata", "m_plus"])
def test_tau_is_that_of_the_attack_otherwise(name: str) -> None:
    attack = AttackConfig(name="friendly", num_steps=4, tau=3)
    assert schedule_of(name=name, attack=attack).settings(5).tau == 3


def test_amata_has_each_number_of_steps_for_the_same_share_of_the_run() -> None:
    attack = AttackConfig(num_steps=5)
    schedule = schedule_of(name="amata", attack=attack, first_steps=2, training_steps=12)
    assert hear(schedule, [1.0] * 11) == [2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert schedule.state_dict() == {} and not schedule.hears_gradient
    alone = schedule_of(name="amata", attack=attack, first_steps=5, training_steps=12)
    assert set(hear(alone, [1.0] * 11)) == {5}


def test_constant_schedule_publishes_the_steps_that_the_attack_takes() -> None:
    assert hear(schedule_of(takes=1), [1.0, 2.0]) == [1, 1, 1]
    assert schedule_of().state_dict() == {}


REFUSED = {
    "unknown": ({"name": "m_pluss"}, None, "unknown attack schedule 'm_pluss': did you mean 'm_p"),
    "single_step_attack": (
        {"name": "m_plus"}, 1,
        "m_plus has attacks of other numbers of steps, and attack.name=pgd takes 1 where 0",
    ),
    "attack_of_at_most_three_steps": (
        {"name": "m_plus", "first_steps": 3}, 3, "takes 3 where 4 are wanted: use",
    ),
    "first_beyond_most": (
        {"name": "m_plus", "first_steps": 9}, None,
        "first_steps=9 is more than attack.num_steps=8, the most that m_plus may take: use 8",
    ),
    "piece_beyond_most": (
        {"name": "piecewise", "milestones": [5], "later_steps": [9]}, None,
        r"later_steps=\[9\] is more than attack.num_steps=8, the most that piecewise may take",
    ),
    "pieces_out_of_order": (
        {"name": "piecewise", "milestones": [5, 5], "later_steps": [3, 4]}, None,
        r"milestones=\[5, 5\]: expected training steps, each later than the one before",
    ),
    "piece_of_no_length": (
        {"name": "piecewise", "milestones": [5], "later_steps": [3, 4]}, None,
        r"milestones=\[5\]: .* as many as attack_schedule.later_steps=\[3, 4\]",
    ),
    "no_pieces": ({"name": "piecewise"}, None, "piecewise has attacks of 0 steps all the time"),
    "many_milestones": (
        {"name": "piecewise", "milestones": list(range(1, 10**4)), "later_steps": [3]}, None,
        r"^.{,400}$",
    ),
    "more_taus_than_milestones": (
        {"name": "piecewise", "milestones": [5], "later_steps": [3], "later_tau": [1, 2]}, None,
        r"later_tau=\[1, 2\]: expected none, or as many as attack_schedule.milestones=\[5\]",
    ),
    "amata_from_more_steps_than_the_attack_has": (
        {"name": "amata", "first_steps": 9}, None,
        "first_steps=9 is more than attack.num_steps=8, the most that amata may take: use 8",
    ),
    "amata_of_a_single_step_attack": (
        {"name": "amata", "first_steps": 2}, 1, "takes 1 where 2 are wanted: use attack.name=pgd",
    ),
    "pieces_of_a_single_step_attack": (
        {"name": "piecewise", "first_steps": 1, "milestones": [5], "later_steps": [2]}, 1,
        "piecewise has attacks of other numbers of steps, and .* takes 1 where 2 are wanted: use",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "takes", "line"), REFUSED.values(), ids=REFUSED)
def test_schedule_that_does_not_fit_is_refused_in_a_line(
    config: dict[str, object], takes: int | None, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        schedule_of(takes=takes, **config)
