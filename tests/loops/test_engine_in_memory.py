"""The real trainer and attackers joined in memory: same bits whoever crafted, and nothing left."""

from dataclasses import replace
from statistics import mean

import pytest
from contract import contract_first_version, contract_version
from fake_work import fresh_report, own_magnitude, parameters_of, sequential_values
from in_memory_job import Job, JobShape
from job_shapes import (
    SHAPES,
    SHARES,
    disturbed,
    each_shape,
    expected,
    left_over,
    rule,
    seeds_of,
    step_at,
)

from mpiadv.comm.messages import Fate, Stop
from mpiadv.contract.accounts import Probed
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.loops.probe import prober_of
from mpiadv.process.errors import NonFiniteLossError, SilentRankError


def probing(shape: JobShape, num_attackers: int, seed: int, fewer: int = 1) -> JobShape:
    """`disturbed`, probing every version, or every second or third of them."""
    every = fewer * shape.rule.publish_every
    return replace(disturbed(shape, num_attackers, seed), fresh_every=every)


def assert_probes_are_those_of_the_definition(shape: JobShape, probes: list[Probed]) -> None:
    values = sequential_values(shape.rule, shape.training_steps, shape.settings_at)
    steps = [probed.step for probed in probes]
    assert len(set(steps)) == len(steps)
    for probed in probes:
        value = values[probed.step]
        report = fresh_report(shape.rule, probed.step, value, shape.settings_at)
        assert (probed.accuracy, probed.loss) == (report.accuracy, report.loss)


@pytest.mark.parametrize("num_attackers", [0, 1, 2, 4, 7])
@each_shape
def test_any_number_of_attackers_on_any_schedule_gives_the_bits_of_the_definition(
    shape: JobShape, num_attackers: int
) -> None:
    jobs = [Job(disturbed(shape, num_attackers, seed)).run() for seed in seeds_of(shape)]
    assert {job.learner.value for job in jobs} == {expected(shape)}


@pytest.mark.parametrize("num_attackers", [0, 1, 4])
@each_shape
def test_trainer_that_does_not_craft_ends_with_the_same_bits(
    shape: JobShape, num_attackers: int
) -> None:
    jobs = [
        Job(replace(shape, num_attackers=num_attackers, seed=seed, trainer_crafts=False)).run()
        for seed in seeds_of(shape)
    ]
    assert {job.learner.value for job in jobs} == {expected(shape)}
    if num_attackers:
        helping = [job for job in jobs if any(r.origin.rank == 0 for r in job.records)]
        assert all("re-crafted" in [kind for kind, _ in job.events] for job in helping)


@each_shape
def test_records_tell_every_step_once_with_the_versions_of_the_rule(shape: JobShape) -> None:
    job = Job(disturbed(shape, 4, seed=2)).run()
    values = sequential_values(shape.rule, shape.training_steps, shape.settings_at)
    assert [record.step for record in job.records] == list(range(shape.training_steps))
    for record in job.records:
        ticket, origin = record.origin.ticket, record.origin
        settings = shape.settings_at(contract_first_version(shape.rule, ticket))
        crafted = max(0, settings.num_steps - shape.rule.trainer_steps)
        used = [
            contract_version(shape.rule, ticket, step, settings.num_steps)
            for step in range(crafted)
        ]
        used = used or [record.step]
        assert (origin.first_version, origin.last_version) == (used[0], used[-1])
        bounds = shape.rule
        assert 0 <= origin.first_staleness <= (bounds.max_staleness if crafted else 0)
        assert 0 <= origin.last_staleness <= (bounds.final_staleness if crafted else 0)
        assert origin.settings == settings
        is_last = crafted == settings.num_steps > 0
        tickets = range(ticket, ticket + shape.rule.tickets_per_step)
        magnitude = mean(tickets) if is_last else own_magnitude(values[record.step])
        assert tickets[0] == record.step * shape.rule.tickets_per_step
        assert record.report.gradient_magnitude == magnitude
    assert {record.origin.rank for record in job.records} & {1, 2, 3, 4}


@pytest.mark.parametrize("share", SHARES)
@each_shape
def test_interrupted_job_goes_on_to_the_same_bits_with_other_attackers(
    shape: JobShape, share: float
) -> None:
    stop_at = step_at(shape, share)
    stopped = Job(replace(disturbed(shape, 3, seed=stop_at), stop_at=stop_at)).run()
    assert stopped.saved.step == stop_at
    assert {reason for reason, _ in stopped.finals.values()} == {Stop.INTERRUPTED}
    for num_attackers in (0, 1, 5):
        job = Job(disturbed(shape, num_attackers, seed=stop_at + 1), stopped.saved).run()
        assert job.learner.value == expected(shape)


def test_checkpoint_waits_for_snapshots_that_are_not_complete() -> None:
    shape = JobShape(rule=rule(16, 16, 4), num_attackers=2, snapshot_polls=100)
    stopped = Job(replace(shape, stop_at=18)).run()
    assert sorted(stopped.saved.published) == [4, 8, 12, 16]
    assert Job(shape, stopped.saved).run().learner.value == expected(shape)


@pytest.mark.parametrize("share", [None, 0.33], ids=["finished", "interrupted"])
@each_shape
def test_shutdown_leaves_nothing_on_its_way_and_counts_every_batch(
    shape: JobShape, share: float | None
) -> None:
    stop_at = None if share is None else step_at(shape, share)
    for seed in seeds_of(shape):
        job = Job(replace(disturbed(shape, 4, seed), stop_at=stop_at)).run()
        assert left_over(job) == 0
        begun = [rank for rank, crafter in job.crafters.items() if crafter.tickets]
        assert begun in ([], [0] if stop_at else [])
        assert sorted(job.farewells) == job.link.attackers
        assert job.link.answers.total() == job.link.num_grants
        for rank, farewell in job.farewells.items():
            work = farewell.work
            assert (work.rank, work.host) == (rank, f"host-{rank}")
            assert work.tickets == job.link.answers[rank, Fate.CRAFTED]


@each_shape
def test_every_attacker_ends_with_the_final_parameters(shape: JobShape) -> None:
    job = Job(disturbed(shape, 4, seed=1)).run()
    ends = {(Stop.FINISHED, parameters_of(expected(shape)))}
    assert set(job.finals.values()) == ends


@each_shape
def test_receives_and_rings_stay_within_their_bounds(shape: JobShape) -> None:
    for seed in seeds_of(shape):
        job = Job(disturbed(shape, 7, seed)).run()
        assert 0 < job.link.largest_posted <= shape.rule.window
        assert job.link.largest_posted_of_one <= (shape.outstanding or shape.rule.window)
        assert max(job.largest_rings.values()) <= shape.rule.num_versions


@pytest.mark.parametrize("num_attackers", [1, 2, 5])
@each_shape
def test_probes_tell_the_figures_of_the_definition_and_leave_the_bits(
    shape: JobShape, num_attackers: int
) -> None:
    probes = []
    for seed in seeds_of(shape):
        probing_shape = probing(shape, num_attackers, seed, fewer=1 + seed % 3)
        job = Job(probing_shape).run()
        every, attackers = probing_shape.fresh_every, job.link.attackers
        assert job.learner.value == expected(shape)
        assert left_over(job) == 0
        assert_probes_are_those_of_the_definition(shape, job.probes)
        assert all(p.rank == prober_of(p.step, every, attackers) > 0 for p in job.probes)
        probes += job.probes
    assert len({probed.step for probed in probes}) > 1


@each_shape
def test_trainer_alone_probes_every_ticket_that_is_due_in_its_own_time(shape: JobShape) -> None:
    job = Job(replace(probing(shape, 0, seed=1), snapshot_polls=9)).run()
    every = job.shape.fresh_every
    assert [p.step for p in job.probes] == list(range(0, shape.training_steps, every))
    assert_probes_are_those_of_the_definition(shape, job.probes)
    assert job.learner.value == expected(shape)
    assert {probed.rank for probed in job.probes} == {0}
    spent = sum(p.seconds for p in job.probes) + sum(r.total_seconds for r in job.records)
    assert spent <= job.now


@each_shape
def test_resumed_job_probes_no_ticket_again_that_was_trained_on(shape: JobShape) -> None:
    for stop_at in (step_at(shape, 0.18), step_at(shape, 0.4)):
        stopped = Job(replace(probing(shape, 3, seed=stop_at), stop_at=stop_at)).run()
        kept = [probed for probed in stopped.probes if probed.step < stop_at]
        for num_attackers in (0, 2):
            job = Job(probing(shape, num_attackers, seed=stop_at + 1), stopped.saved).run()
            assert all(probed.step >= stop_at for probed in job.probes)
            assert_probes_are_those_of_the_definition(shape, kept + job.probes)
            assert job.learner.value == expected(shape)


@each_shape
def test_probe_never_leaves_an_attacker_without_room_for_the_next_version(shape: JobShape) -> None:
    for seed in seeds_of(shape):
        job = Job(probing(shape, 3, seed)).run()
        assert job.fewest_free_slots == 1
        assert max(job.largest_rings.values()) <= shape.rule.num_versions


def test_probe_without_a_batch_to_go_with_comes_with_the_farewell() -> None:
    jobs = [Job(probing(SHAPES["fresh"], 4, seed)).run() for seed in range(12)]
    told = [
        (farewell.probe.step, job)
        for job in jobs
        for farewell in job.farewells.values()
        if farewell.probe.step >= 0
    ]
    assert told
    for ticket, job in told:
        assert ticket in [probed.step for probed in job.probes]


def test_version_goes_first_to_whoever_needs_it_for_the_next_ticket() -> None:
    shape = JobShape(rule=rule(6, 2, 2), num_attackers=3, outstanding=2)
    jobs = (Job(replace(shape, seed=seed)).run() for seed in range(20))
    # A ticket taken from a late attacker would go to another.
    job = next(job for job in jobs if not job.events)
    ahead = {version: first for version, first in job.link.sent_first.items() if first}
    crafted_by = {record.origin.ticket: record.origin.rank for record in job.records}
    assert len(ahead) > len(job.records) // 4
    assert all(first == [crafted_by[version + 1]] for version, first in ahead.items())


def test_version_goes_to_all_at_once_where_staleness_is_constant() -> None:
    job = Job(JobShape(rule=rule(6, 6, 2), num_attackers=3, outstanding=2)).run()
    assert not any(job.link.sent_first.values())


def test_bounded_mode_stays_within_the_bounds_of_the_rule() -> None:
    shape = JobShape(rule=rule(16, 4, 4), num_attackers=3, mode=StalenessMode.BOUNDED)
    fresher = 0
    for seed in range(6):
        for record in Job(replace(shape, seed=seed)).run().records:
            ticket, k = record.origin.ticket, record.origin.settings.num_steps
            last = contract_version(shape.rule, ticket, k - 1, k)
            assert contract_first_version(shape.rule, ticket) <= record.origin.first_version
            assert last <= record.origin.last_version <= ticket
            fresher += record.origin.last_version > last
    assert fresher > 0


def test_nan_loss_names_step_and_ticket() -> None:
    job = Job(JobShape(rule=rule(4, 2, 1), num_attackers=2, nan_at=5))
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 5, ticket 5"):
        job.run()
    assert job.trainer.dispatcher.step == 5


def test_largest_job_is_granted_no_more_than_the_window_at_the_start() -> None:
    shape = JobShape(rule=rule(3, 3, 1), num_attackers=7, outstanding=4)
    silent = replace(shape, silent=frozenset(range(1, 8)), deadline_seconds=5.0)
    job = Job(replace(silent, survives_losses=False))
    with pytest.raises(SilentRankError):
        job.run()
    assert job.link.num_grants == 4
