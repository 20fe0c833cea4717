"""What holds on every schedule: thousands of random ones, in virtual time."""

from dataclasses import replace

import pytest
from contract import contract_first_version, contract_lag, contract_step, contract_version
from hypothesis import given
from hypothesis import strategies as st
from scenario import Checkpoint, Scenario, mixed
from simulation import Simulation, simulate
from strategies import examples, scenarios

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.tickets import AttackSettings, StalenessRule

BOTH = st.sampled_from(list(StalenessMode))
BOUNDED = st.just(StalenessMode.BOUNDED)
QUICKLY_OVERDUE = st.sampled_from([0.0, 30.0, 100.0])


def settings_of(scenario: Scenario, ticket: int) -> AttackSettings:
    return scenario.settings_at(contract_first_version(scenario.rule, ticket))


def sequential_value(scenario: Scenario) -> int:
    """The final parameters' hash by the definition alone, one ticket after the other."""
    rule, values = scenario.rule, [Checkpoint().value]
    value = values[0]
    for ticket in range(scenario.num_tickets):
        settings = settings_of(scenario, ticket)
        batch, k = mixed(ticket, settings), settings.num_steps
        num_crafted = max(0, k - rule.trainer_steps)
        for step in range(num_crafted):
            version = contract_version(rule, ticket, step, k)
            batch = mixed(batch, step, version, values[version])
        value = mixed(value, batch, k - num_crafted)
        if (ticket + 1) % rule.tickets_per_step == 0:
            values.append(value)
    return values[-1]


@examples(200)
@given(scenarios(modes=BOTH))
def test_every_ticket_is_consumed_once_and_in_order(scenario: Scenario) -> None:
    assert simulate(scenario).consumed == list(range(scenario.num_tickets))


@examples(200)
@given(scenarios(modes=BOTH))
def test_staleness_of_every_attack_step_is_within_its_bound(scenario: Scenario) -> None:
    rule, observed = scenario.rule, simulate(scenario)
    for ticket, used in observed.used.items():
        settings = settings_of(scenario, ticket)
        assert [step.step for step in used] == list(range(settings.num_steps))
        for step in used:
            assert step.settings == settings
            trained = contract_step(rule, ticket)
            staleness = trained - step.version
            lag = contract_lag(rule, step.step, settings.num_steps)
            assert 0 <= staleness <= lag <= rule.max_staleness
            assert step.version % rule.publish_every == 0 or step.version == trained
        crafted = used[: max(0, settings.num_steps - rule.trainer_steps)]
        if crafted:
            assert contract_step(rule, ticket) - crafted[-1].version <= rule.final_staleness


@examples(200)
@given(scenarios())
def test_fixed_mode_uses_exactly_the_version_of_the_rule(scenario: Scenario) -> None:
    for ticket, used in simulate(scenario).used.items():
        k = settings_of(scenario, ticket).num_steps
        versions = [contract_version(scenario.rule, ticket, step, k) for step in range(k)]
        assert [step.version for step in used] == versions


@examples(200)
@given(scenarios(modes=BOUNDED))
def test_bounded_mode_is_never_older_than_the_rule_nor_newer_than_the_ticket(
    scenario: Scenario,
) -> None:
    for ticket, used in simulate(scenario).used.items():
        k = settings_of(scenario, ticket).num_steps
        newest = contract_step(scenario.rule, ticket)
        for step in used:
            assert contract_version(scenario.rule, ticket, step.step, k) <= step.version <= newest


def test_bounded_mode_is_fresher_where_it_can_be() -> None:
    rule = StalenessRule(max_staleness=16, final_staleness=4, publish_every=1)
    scenario = Scenario(rule=rule, num_attackers=2, mode=StalenessMode.BOUNDED, attack_step=1.0)

    def mean_version(scenario: Scenario) -> float:
        used = [step for steps in simulate(scenario).used.values() for step in steps]
        return sum(step.version for step in used) / len(used)

    assert mean_version(scenario) > mean_version(replace(scenario, mode=StalenessMode.FIXED)) + 1


@examples(300)
@given(scenarios())
def test_final_parameters_are_those_of_the_definition_on_every_schedule(scenario: Scenario) -> None:
    assert simulate(scenario).value == sequential_value(scenario)


@examples(200)
@given(scenarios(modes=BOTH))
def test_credits_and_rings_stay_within_their_bounds(scenario: Scenario) -> None:
    rule, observed = scenario.rule, simulate(scenario)
    assert observed.largest_charge_of_one <= (scenario.outstanding or rule.window)
    most = (rule.max_staleness + 1) * rule.tickets_per_step
    assert observed.largest_charge <= most
    assert observed.largest_live <= most
    assert all(size <= rule.num_versions for size in observed.largest_ring.values())


@examples(200)
@given(scenarios(modes=BOTH, overdue=QUICKLY_OVERDUE))
def test_lost_races_leave_the_bits_and_give_the_credit_back(scenario: Scenario) -> None:
    observed = simulate(scenario)
    for attacker in observed.granted.keys() - scenario.losses.keys():
        assert observed.granted[attacker] == observed.returned[attacker]
    assert observed.credits_left_charged == 0
    if scenario.mode is StalenessMode.FIXED:
        assert observed.value == sequential_value(scenario)


def test_late_copies_are_discarded_and_tickets_consumed_elsewhere_dropped() -> None:
    racing = Scenario(
        rule=StalenessRule(max_staleness=8, final_staleness=2, publish_every=2),
        num_attackers=3,
        jitter=0.5,
        slowness={2: 5.0},
        overdue=100.0,
        latency=(0.0, 60.0),
        broadcast=(0.0, 100.0),
    )
    runs = [simulate(replace(racing, seed=seed)) for seed in range(20)]
    assert {run.value for run in runs} == {sequential_value(racing)}
    assert sum(run.recrafted for run in runs) > 50
    assert sum(run.lost_races for run in runs) > 10
    assert sum(run.dropped for run in runs) > 10
    assert sum(run.won_races for run in runs) > 10


@examples(200)
@given(scenarios(), st.integers(1, 60), st.integers(0, 9), st.integers(1, 4))
def test_interrupted_run_goes_on_to_the_same_bits_with_other_attackers(
    scenario: Scenario, stop_at: int, num_attackers: int, outstanding: int
) -> None:
    stop_at = min(stop_at, scenario.training_steps)
    checkpoint = simulate(replace(scenario, stop_at=stop_at)).checkpoint
    assert checkpoint is not None and checkpoint.step == stop_at
    following = replace(
        scenario,
        num_attackers=num_attackers,
        outstanding=outstanding,
        seed=scenario.seed + 1,
    )
    observed = simulate(following, checkpoint)
    first = stop_at * scenario.rule.tickets_per_step
    assert observed.consumed == list(range(first, scenario.num_tickets))
    assert observed.value == sequential_value(scenario)


@examples(200)
@given(scenarios(modes=BOTH))
def test_trainer_never_keeps_a_ready_batch_waiting(scenario: Scenario) -> None:
    assert simulate(scenario).kept_waiting == 0


def test_trainer_alone_goes_on_while_every_attacker_hangs() -> None:
    rule = StalenessRule(max_staleness=0, final_staleness=0, publish_every=1)
    scenario = Scenario(rule=rule, num_attackers=2, outstanding=1, overdue=100.0)
    simulation = Simulation(scenario)
    simulation.clock.at(1000.0, lambda: simulation.become({1: 1e9, 2: 1e9}))
    observed = simulation.run()
    assert observed.step_ended[-1] < 60_000
    assert observed.value == sequential_value(scenario)


def test_lost_attackers_cost_their_tickets_and_no_bits() -> None:
    rule = StalenessRule(max_staleness=8, final_staleness=2, publish_every=2)
    steady = Scenario(rule=rule, num_attackers=4)
    undisturbed = simulate(steady)
    for losses in ({2: 900.0}, {1: 900.0, 4: 900.0}, {1: 300.0, 2: 600.0, 3: 601.0, 4: 900.0}):
        observed = simulate(replace(steady, losses=losses))
        assert observed.value == undisturbed.value
        assert len(losses) <= observed.crafted_anew <= 2 * len(losses)


RULES = {
    "constant": StalenessRule(max_staleness=16, final_staleness=16, publish_every=4),
    "refreshed": StalenessRule(max_staleness=16, final_staleness=4, publish_every=4),
}
WARM_UP = 60


def speed(scenario: Scenario) -> tuple[float, float]:
    """Speed-up over one rank as a share of the possible, and the share of time spent idle."""
    observed = simulate(replace(scenario, broadcast=(0.5, 3.0)))
    span = observed.step_ended[-1] - observed.step_ended[WARM_UP]
    craft = scenario.attack_step * scenario.num_steps
    alone = (craft + scenario.train) * (scenario.num_tickets - WARM_UP - 1)
    possible = min(scenario.num_attackers + 1, 1 + craft / scenario.train)
    idle = observed.idle_by_step[-1] - observed.idle_by_step[WARM_UP]
    return alone / span / possible, idle / span


@pytest.mark.parametrize("jitter", [0.0, 0.05], ids=["steady", "jitter"])
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_speed_up_is_linear_in_virtual_time(rule: StalenessRule, ranks: int, jitter: float) -> None:
    scenario = Scenario(rule=rule, num_attackers=ranks - 1, training_steps=300, jitter=jitter)
    share, _ = speed(scenario)
    assert share >= 0.95


@pytest.mark.parametrize(("ranks", "largest"), [(8, 0.08), (9, 0.03)])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_trainer_is_hardly_ever_idle(rule: StalenessRule, ranks: int, largest: float) -> None:
    _, idle = speed(Scenario(rule=rule, num_attackers=ranks - 1, training_steps=300, jitter=0.05))
    assert idle < largest
