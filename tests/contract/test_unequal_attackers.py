"""Attackers of different speed: tickets shared by speed, and nobody waits for the slow."""

from collections import Counter
from dataclasses import replace

import pytest
from scenario import Observed, Scenario
from simulation import Simulation, simulate

from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import StalenessRule
from mpiadv.contract.turns import NUM_RECENT, RETRY_TICKETS, TRAINER, Grant, Pace

RULES = {
    "constant": StalenessRule(max_staleness=16, final_staleness=16, publish_every=4),
    "refreshed": StalenessRule(max_staleness=16, final_staleness=4, publish_every=4),
    "default": StalenessRule(max_staleness=16, final_staleness=2, publish_every=2),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
WARM_UP = 100
SPEEDS = {1: 1, 2: 1, 3: 2, 4: 4}
"""Attacker to how many times as fast as the slowest it is."""


def scenario(rule: StalenessRule, slowness: dict[int, float], **others: object) -> Scenario:
    return Scenario(
        rule=rule,
        num_attackers=len(slowness),
        slowness=slowness,
        jitter=0.05,
        broadcast=(0.5, 3.0),
        overdue=2500.0,
        **{"outstanding": 8, "training_steps": 250, **others},  # type: ignore[arg-type]
    )


def ticket_time(observed: Observed) -> float:
    """Milliseconds per ticket after the warm-up."""
    ends = observed.step_ended
    return (ends[-1] - ends[WARM_UP]) / (len(ends) - WARM_UP - 1)


def shares(observed: Observed) -> dict[int, float]:
    """The share of the tickets that each rank crafted, after the warm-up."""
    crafted = Counter(rank for ticket, rank in observed.crafted_by.items() if ticket > WARM_UP)
    return {rank: count / crafted.total() for rank, count in crafted.items()}


@each_rule
@pytest.mark.parametrize("outstanding", [8, None])
def test_tickets_are_shared_by_speed_and_no_speed_is_lost(
    rule: StalenessRule, outstanding: int | None
) -> None:
    slowness = {rank: 4 / speed for rank, speed in SPEEDS.items()}
    work = {"attack_step": 9.0, "train": 16.0, "trainer_crafts": False}
    observed = simulate(scenario(rule, slowness, outstanding=outstanding, **work))
    at_best = 8 * 9.0 * 4 / sum(SPEEDS.values())
    assert at_best / ticket_time(observed) >= 0.9
    shared = shares(observed)
    for rank, speed in SPEEDS.items():
        assert shared[rank] == pytest.approx(speed / sum(SPEEDS.values()), abs=0.04)


@each_rule
@pytest.mark.parametrize("times", [10.0, 100.0])
@pytest.mark.parametrize("others", [1, 7])
def test_attacker_that_is_far_slower_costs_next_to_nothing(
    rule: StalenessRule, times: float, others: int
) -> None:
    slowness = {rank: 1.0 for rank in range(1, others + 1)}
    steps = 400  # it is tried twice
    alone = simulate(scenario(rule, slowness, training_steps=steps))
    beside = simulate(scenario(rule, {**slowness, others + 1: times}, training_steps=steps))
    assert ticket_time(beside) <= 1.04 * ticket_time(alone)
    assert beside.value == alone.value


@each_rule
@pytest.mark.parametrize("outstanding", [2, 3, 8, None])
@pytest.mark.parametrize("ranks", [2, 4, 8, 9])
def test_more_credit_costs_equal_attackers_no_speed(
    rule: StalenessRule, outstanding: int | None, ranks: int
) -> None:
    equal = scenario(rule, {rank: 1.0 for rank in range(1, ranks)})
    at_best = min(ranks, 1 + 8 * equal.attack_step / equal.train)
    alone = 8 * equal.attack_step + equal.train
    speed_up = alone / ticket_time(simulate(replace(equal, outstanding=outstanding)))
    assert speed_up / at_best >= 0.95


def slow_for_a_while(simulation: Simulation, rank: int, begins: float, ends: float) -> None:
    """One attacker is a hundred times slower between two times."""
    normal = simulation.job.slowness
    simulation.clock.at(begins, lambda: simulation.become({**normal, rank: 100.0}))
    simulation.clock.at(ends, lambda: simulation.become({**normal, rank: 1.0}))


@pytest.mark.parametrize("others", [0, 3])
def test_attacker_that_was_slow_for_a_while_takes_part_again(others: int) -> None:
    equal = scenario(RULES["default"], {rank: 1.0 for rank in range(1, others + 2)})
    simulation = Simulation(replace(equal, training_steps=1500))
    slow_for_a_while(simulation, rank=1, begins=2000.0, ends=12_000.0)
    crafted_by = simulation.run().crafted_by
    last = Counter(rank for ticket, rank in crafted_by.items() if ticket >= 1200)
    assert last[1] > 0.2 * last.total()


def book(*attackers: int, outstanding: int | None = 8) -> Dispatcher:
    """Of attackers that take 8 s for a batch, where training on one takes 1 s."""
    dispatcher = Dispatcher(
        RULES["constant"],
        attackers=list(attackers),
        outstanding=outstanding,
        num_tickets=2000,
        trainer_crafts=False,
    )
    dispatcher.pace.trained(1.0)
    for attacker in attackers:
        make_slow(dispatcher, attacker, 8.0)
    return dispatcher


def grants(dispatcher: Dispatcher) -> dict[int, list[int]]:
    """Attacker to the tickets that it is granted now."""
    given: dict[int, list[int]] = {}
    for grant in iter(dispatcher.next_grant, None):
        given.setdefault(grant.attacker, []).append(grant.ticket)
    return given


def make_slow(dispatcher: Dispatcher, attacker: int, seconds: float) -> None:
    for _ in range(NUM_RECENT):
        dispatcher.pace.crafted(seconds, attacker)


def test_equal_attackers_take_turns_through_the_whole_window() -> None:
    given = grants(book(1, 2, 3, 4))
    assert given == {a: list(range(a - 1, 17, 4)) for a in (1, 2, 3, 4)}


def test_credit_by_speed_spans_the_same_time_for_all() -> None:
    dispatcher = book(1, 2, 3, outstanding=None)
    make_slow(dispatcher, 2, 24.0)
    given = grants(dispatcher)
    assert {attacker: len(tickets) for attacker, tickets in given.items()} == {1: 6, 2: 2, 3: 6}


def test_equal_attackers_get_two_tickets_each_where_credit_goes_by_speed() -> None:
    assert grants(book(1, 2, 3, outstanding=None)) == {1: [0, 3], 2: [1, 4], 3: [2, 5]}


@pytest.mark.parametrize("num_batches", [1, NUM_RECENT - 1])
def test_first_batches_say_nothing_about_credit(num_batches: int) -> None:
    dispatcher = Dispatcher(
        RULES["constant"], attackers=[1, 2, 3], outstanding=None, num_tickets=2000
    )
    for rank, seconds in ((TRAINER, 2.0), (1, 8.0), (2, 24.0)):
        for _ in range(num_batches):
            dispatcher.pace.crafted(seconds, rank)
    dispatcher.pace.trained(1.0)
    grants(dispatcher)
    assert max(len(dispatcher._turns.charged[attacker]) for attacker in (1, 2, 3)) == 2


def test_attacker_too_slow_for_the_window_gets_only_a_copy_of_what_another_crafts() -> None:
    dispatcher = book(1, 2, outstanding=6)
    make_slow(dispatcher, 2, 300.0)
    assert grants(dispatcher) == {1: [0, 1, 2, 3, 4, 5], 2: [5]}
    assert dispatcher.holders[5] == 1


def test_copy_that_is_given_up_is_followed_by_another_only_after_many_steps() -> None:
    dispatcher = book(1, 2, outstanding=6)
    make_slow(dispatcher, 2, 300.0)
    given = []
    for step in range(RETRY_TICKETS + 10):
        given += grants(dispatcher).get(2, [])
        dispatcher.arrived(step, 1)
        dispatcher.trained()
        if step in dispatcher.owed_by(2):
            dispatcher.dropped(step, 2)
    assert given[0] == 5
    assert [ticket > RETRY_TICKETS for ticket in given[1:]] == [True]


def test_what_else_a_late_attacker_holds_is_given_to_others_and_its_copy_counts() -> None:
    dispatcher = book(1, 2, outstanding=3)
    assert grants(dispatcher) == {1: [0, 2, 4], 2: [1, 3, 5]}
    dispatcher.overdue(0)
    assert 1 in dispatcher._turns.late
    dispatcher.arrived(1, 2)
    assert dispatcher.arrived(0, 1), "the trainer's own copy is not ready yet"
    assert 1 not in dispatcher._turns.late
    dispatcher.trained()
    dispatcher.trained()
    assert dispatcher.next_grant() == Grant(ticket=2, attacker=2, patient=False)
    assert dispatcher.arrived(2, 1), "the first of two copies"
    assert not dispatcher.arrived(2, 2)


def test_late_attacker_gets_no_ticket_before_it_has_returned_a_batch() -> None:
    dispatcher = book(1, outstanding=4)
    assert grants(dispatcher) == {1: [0, 1, 2, 3]}
    dispatcher.overdue(0)
    assert grants(dispatcher) == {}
    for ticket in range(4):
        assert dispatcher.arrived(ticket, 1)
    dispatcher.trained()
    assert grants(dispatcher) == {1: [4]}


def test_single_hiccup_does_not_change_an_attackers_pace() -> None:
    pace = Pace()
    for seconds in (8.0, 8.5, 300.0):
        pace.crafted(seconds, 1)
    assert pace.craft_seconds(1) == 8.5


def test_unmeasured_attacker_counts_as_fast_as_the_fastest_rank() -> None:
    pace = Pace()
    pace.crafted(8.0, 1)
    pace.crafted(2.0, 0)
    assert pace.craft_seconds(3) == 2.0
