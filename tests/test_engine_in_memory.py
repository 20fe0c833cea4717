"""The real trainer and attackers joined in memory: same bits whoever crafted, and nothing left."""

import re
from dataclasses import replace

import pytest
from contract import contract_first_version, contract_version
from fake_work import (
    FakeCrafter,
    fake_shape,
    fresh_report,
    parameters_of,
    sequential_value,
    sequential_values,
)
from in_memory_job import Job, JobShape

from mpiadv.comm.links import BatchSlot, Order
from mpiadv.comm.memory import MemoryAttackerLink, MemoryNetwork, MemoryTrainerLink
from mpiadv.dispatch import StalenessMode
from mpiadv.engine.attacker import Attacker
from mpiadv.engine.probe import Probed, prober_of
from mpiadv.engine.trainer import Stop
from mpiadv.errors import DeadlineError, NonFiniteLossError, SilentRankError
from mpiadv.tickets import StalenessRule


def rule(largest: int, final: int, every: int, trainer_steps: int = 0) -> StalenessRule:
    return StalenessRule(
        max_staleness=largest,
        final_staleness=final,
        publish_every=every,
        trainer_steps=trainer_steps,
    )


SHAPES = {
    "synchronous": JobShape(rule=rule(0, 0, 1), num_attackers=0),
    "constant": JobShape(rule=rule(8, 8, 4), num_attackers=0, outstanding=3),
    "refreshed": JobShape(rule=rule(16, 4, 4), num_attackers=0),
    "fresh": JobShape(rule=rule(5, 1, 1), num_attackers=0, outstanding=1),
    "old": JobShape(rule=rule(24, 6, 7), num_attackers=0, outstanding=4),
    "trainer_steps": JobShape(rule=rule(12, 3, 2, 2), num_attackers=0),
    "all_steps_on_the_trainer": JobShape(rule=rule(4, 2, 3, 5), num_attackers=0),
    "one_attack_step": JobShape(rule=rule(6, 2, 3), num_attackers=0, num_steps=1),
    "no_attack": JobShape(rule=rule(6, 6, 1), num_attackers=0, num_steps=0),
}
SEEDS = range(6)
TROUBLES = {
    "steady": {},
    "one_slow": {"slow": frozenset({2})},
    "hanging": {"hang_share": 0.03, "slow": frozenset({1, 3})},
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def disturbed(shape: JobShape, num_attackers: int, seed: int) -> JobShape:
    """`shape` with attackers, and the trouble that belongs to the seed."""
    trouble = list(TROUBLES.values())[seed % len(TROUBLES)]
    return replace(shape, num_attackers=num_attackers, seed=seed, **trouble)  # type: ignore[arg-type]


def expected(shape: JobShape) -> int:
    return sequential_value(shape.rule, shape.num_tickets, shape.settings_at)


def probing(shape: JobShape, num_attackers: int, seed: int, fewer: int = 1) -> JobShape:
    """`disturbed`, probing every version, or every second or third of them."""
    every = fewer * shape.rule.publish_every
    return replace(disturbed(shape, num_attackers, seed), fresh_every=every)


def assert_probes_are_those_of_the_definition(shape: JobShape, probes: list[Probed]) -> None:
    values = sequential_values(shape.rule, shape.num_tickets, shape.settings_at)
    tickets = [probed.ticket for probed in probes]
    assert len(set(tickets)) == len(tickets)
    for probed in probes:
        ticket = probed.ticket
        report = fresh_report(shape.rule, ticket, values[ticket], shape.settings_at)
        assert (probed.accuracy, probed.loss) == (report.accuracy, report.loss)


def left_over(job: Job) -> int:
    """Messages in any queue of the network."""
    network = job.network
    queues = (network.parameters, network.words, network.batches)
    return sum(len(wire) for wires in queues for wire in wires.values())


@pytest.mark.parametrize("num_attackers", [0, 1, 2, 4, 7])
@each_shape
def test_any_number_of_attackers_on_any_schedule_gives_the_bits_of_the_definition(
    shape: JobShape, num_attackers: int
) -> None:
    values = [Job(disturbed(shape, num_attackers, seed)).run().learner.value for seed in SEEDS]
    assert values == [expected(shape)] * len(values)


@pytest.mark.parametrize("num_attackers", [0, 1, 4])
@each_shape
def test_trainer_that_does_not_craft_ends_with_the_same_bits(
    shape: JobShape, num_attackers: int
) -> None:
    jobs = [
        Job(replace(shape, num_attackers=num_attackers, seed=seed, trainer_crafts=False)).run()
        for seed in SEEDS
    ]
    assert {job.learner.value for job in jobs} == {expected(shape)}
    if num_attackers:
        helping = [job for job in jobs if any(r.origin.rank == 0 for r in job.records)]
        assert all("re-crafted" in [kind for kind, _ in job.events] for job in helping)


@each_shape
def test_records_tell_every_step_once_with_the_versions_of_the_rule(shape: JobShape) -> None:
    job = Job(disturbed(shape, 4, seed=2)).run()
    assert [record.step for record in job.records] == list(range(shape.num_tickets))
    for record in job.records:
        ticket, origin = record.ticket, record.origin
        first = contract_first_version(shape.rule, ticket)
        settings = shape.settings_at(first)
        crafted = max(0, settings.num_steps - shape.rule.trainer_steps)
        last = contract_version(shape.rule, ticket, crafted - 1, settings.num_steps)
        assert (origin.first_version, origin.last_version) == (first, last if crafted else first)
        assert (origin.num_steps, origin.epsilon) == (settings.num_steps, settings.epsilon)
        assert origin.gradient_magnitude == ticket
    assert {record.origin.rank for record in job.records} & {1, 2, 3, 4}


@pytest.mark.parametrize("stop_at", [1, 7, 16, 33])
@each_shape
def test_interrupted_job_goes_on_to_the_same_bits_with_other_attackers(
    shape: JobShape, stop_at: int
) -> None:
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


@pytest.mark.parametrize("stop_at", [None, 13], ids=["finished", "interrupted"])
@each_shape
def test_shutdown_leaves_nothing_on_its_way_and_counts_every_batch(
    shape: JobShape, stop_at: int | None
) -> None:
    for seed in SEEDS:
        job = Job(replace(disturbed(shape, 4, seed), stop_at=stop_at)).run()
        assert left_over(job) == 0
        begun = [rank for rank, crafter in job.crafters.items() if crafter.tickets]
        assert begun in ([], [0] if stop_at else [])
        assert sorted(job.farewells) == job.link.attackers
        said = job.farewells.values()
        answered = sum(farewell.batches_sent + farewell.tickets_dropped for farewell in said)
        assert answered == job.link.num_grants
        assert {farewell.host for farewell in said} == {f"host-{r}" for r in job.link.attackers}


@each_shape
def test_every_attacker_ends_with_the_final_parameters(shape: JobShape) -> None:
    job = Job(disturbed(shape, 4, seed=1)).run()
    ends = {(Stop.FINISHED, parameters_of(expected(shape)))}
    assert set(job.finals.values()) == ends


@each_shape
def test_receives_and_rings_stay_within_their_bounds(shape: JobShape) -> None:
    for seed in SEEDS:
        job = Job(disturbed(shape, 7, seed)).run()
        assert 0 < job.link.largest_posted <= shape.rule.window
        assert job.link.largest_posted_of_one <= shape.outstanding
        assert max(job.largest_rings.values()) <= shape.rule.num_versions


@pytest.mark.parametrize("num_attackers", [1, 2, 5])
@each_shape
def test_probes_tell_the_figures_of_the_definition_and_leave_the_bits(
    shape: JobShape, num_attackers: int
) -> None:
    probes = []
    for seed in SEEDS:
        probing_shape = probing(shape, num_attackers, seed, fewer=1 + seed % 3)
        job = Job(probing_shape).run()
        every, attackers = probing_shape.fresh_every, job.link.attackers
        assert job.learner.value == expected(shape)
        assert left_over(job) == 0
        assert_probes_are_those_of_the_definition(shape, job.probes)
        assert all(p.rank == prober_of(p.ticket, every, attackers) > 0 for p in job.probes)
        probes += job.probes
    assert len({probed.ticket for probed in probes}) > 1


@each_shape
def test_trainer_alone_probes_every_ticket_that_is_due_in_its_own_time(shape: JobShape) -> None:
    job = Job(replace(probing(shape, 0, seed=1), snapshot_polls=9)).run()
    every = job.shape.fresh_every
    assert [p.ticket for p in job.probes] == list(range(0, shape.num_tickets, every))
    assert_probes_are_those_of_the_definition(shape, job.probes)
    assert job.learner.value == expected(shape)
    assert {probed.rank for probed in job.probes} == {0}
    spent = sum(p.seconds for p in job.probes) + sum(r.total_seconds for r in job.records)
    assert spent <= job.now


@each_shape
def test_resumed_job_probes_no_ticket_again_that_was_trained_on(shape: JobShape) -> None:
    for stop_at in (7, 16):
        stopped = Job(replace(probing(shape, 3, seed=stop_at), stop_at=stop_at)).run()
        kept = [probed for probed in stopped.probes if probed.ticket < stop_at]
        for num_attackers in (0, 2):
            job = Job(probing(shape, num_attackers, seed=stop_at + 1), stopped.saved).run()
            assert all(probed.ticket >= stop_at for probed in job.probes)
            assert_probes_are_those_of_the_definition(shape, kept + job.probes)
            assert job.learner.value == expected(shape)


@each_shape
def test_probe_never_leaves_an_attacker_without_room_for_the_next_version(shape: JobShape) -> None:
    for seed in SEEDS:
        job = Job(probing(shape, 3, seed)).run()
        assert job.fewest_free_slots == 1
        assert max(job.largest_rings.values()) <= shape.rule.num_versions


def test_probe_without_a_batch_to_go_with_comes_with_the_farewell() -> None:
    jobs = [Job(probing(SHAPES["fresh"], 4, seed)).run() for seed in range(12)]
    told = [
        (farewell.probe_ticket, job)
        for job in jobs
        for farewell in job.farewells.values()
        if farewell.probe_ticket >= 0
    ]
    assert told
    for ticket, job in told:
        assert ticket in [probed.ticket for probed in job.probes]


DEATHS = {
    "one": {2: 9},
    "two_at_once": {1: 9, 3: 9},
    "one_after_the_other": {1: 5, 2: 6, 3: 20},
    "all_at_once": {1: 9, 2: 9, 3: 9, 4: 9},
    "at_the_start": {1: 0, 2: 0},
    "at_the_end": {4: 39, 3: 40},
}


@pytest.mark.parametrize("deaths", DEATHS.values(), ids=DEATHS)
@each_shape
def test_attackers_that_die_cost_their_tickets_and_no_bits(
    shape: JobShape, deaths: dict[int, int]
) -> None:
    for seed in SEEDS[:3]:
        job = Job(replace(disturbed(shape, 4, seed), deaths=deaths)).run()
        assert job.learner.value == expected(shape)
        told = [text for kind, text in job.events if kind == "lost"]
        assert len(told) == len(set(told)) <= len(deaths)
        assert all(re.match(r"rank \d on memory-\d died: ", text) for text in told)
        assert set(job.farewells) >= {1, 2, 3, 4} - deaths.keys()
        assert left_over(job) == 0


STOPS = {
    "training": ({2: 7}, frozenset[int]()),
    "at_the_start": ({2: 0}, frozenset[int]()),
    "at_the_end": ({2: 40}, frozenset[int]()),
    "parting": ({}, frozenset({2})),
}


@pytest.mark.parametrize(("stops", "parting"), STOPS.values(), ids=STOPS)
@each_shape
def test_attacker_that_does_not_answer_is_given_up_and_leaves_when_it_is_back(
    shape: JobShape, stops: dict[int, int], parting: frozenset[int]
) -> None:
    for seed in SEEDS[:3]:
        calm = replace(disturbed(shape, 3, seed), hang_share=0.0, deadline_seconds=4.0)
        job = Job(replace(calm, stops=stops, stops_parting=parting)).run()
        assert job.learner.value == expected(shape)
        if 2 not in job.farewells:
            (text,) = [text for kind, text in job.events if kind == "lost"]
            assert re.match("rank 2 on memory-2 has not answered for 4 s and is given up: ", text)
        assert set(job.farewells) | set(job.dismissed) | set(job.attackers) == {1, 2, 3}


def test_job_that_was_stopped_as_a_whole_gives_nobody_up() -> None:
    shape = JobShape(rule=rule(8, 8, 4), num_attackers=2, deadline_seconds=4.0)
    job = Job(shape)
    job.trainer.publish_due()
    job.trainer.pump()
    job.now += 1000.0
    assert min(job.link.silent_seconds(attacker) for attacker in (1, 2)) >= 1000.0
    job.trainer.supervision.look_after()
    assert job.run().learner.value == expected(shape)
    assert "lost" not in [kind for kind, _ in job.events]


def test_late_attacker_is_named_once_with_its_ticket_and_its_last_sign_of_life() -> None:
    shape = JobShape(
        rule=rule(8, 8, 4), num_attackers=2, stops={2: 9}, deadline_seconds=50.0, num_tickets=60
    )
    job = Job(replace(shape, overdue_seconds=3.0)).run()
    assert job.learner.value == expected(shape)
    (late,) = [text for kind, text in job.events if kind == "late"]
    assert re.fullmatch(
        r"rank 2 on memory-2 has had ticket \d+ for 3\.\d s, its last sign of life was \d+\.\d s "
        "ago: rank 0 crafts the ticket too",
        late,
    )


@pytest.mark.parametrize(("stops", "parting"), STOPS.values(), ids=STOPS)
def test_attacker_that_does_not_answer_ends_the_job_that_cannot_do_without_it(
    stops: dict[int, int], parting: frozenset[int]
) -> None:
    shape = JobShape(
        rule=rule(8, 8, 4), num_attackers=2, survives_losses=False, deadline_seconds=4.0
    )
    job = Job(replace(shape, stops=stops, stops_parting=parting))
    with pytest.raises(
        SilentRankError, match=r"rank 2 on memory-2 with .* has not answered for 4 s"
    ):
        job.run()
    # Between two steps: a checkpoint of this moment goes on with the same bits.
    job._save()
    assert Job(shape, job.saved).run().learner.value == expected(shape)


def test_version_goes_first_to_whoever_needs_it_for_the_next_ticket() -> None:
    shape = JobShape(rule=rule(6, 2, 2), num_attackers=3, outstanding=2)
    jobs = (Job(replace(shape, seed=seed)).run() for seed in range(20))
    # A ticket taken from a late attacker would go to another.
    job = next(job for job in jobs if not job.events)
    ahead = {version: first for version, first in job.link.sent_first.items() if first}
    crafted_by = {record.ticket: record.origin.rank for record in job.records}
    assert len(ahead) > len(job.records) // 4
    assert all(first == [crafted_by[version + 1]] for version, first in ahead.items())


def test_version_goes_to_all_at_once_where_staleness_is_constant() -> None:
    job = Job(JobShape(rule=rule(6, 6, 2), num_attackers=3, outstanding=2)).run()
    assert not any(job.link.sent_first.values())


def test_bounded_mode_stays_within_the_bounds_of_the_rule() -> None:
    shape = JobShape(rule=rule(16, 4, 4), num_attackers=3, mode=StalenessMode.BOUNDED)
    fresher = 0
    for seed in SEEDS:
        for record in Job(replace(shape, seed=seed)).run().records:
            ticket, k = record.ticket, record.origin.num_steps
            last = contract_version(shape.rule, ticket, k - 1, k)
            assert contract_first_version(shape.rule, ticket) <= record.origin.first_version
            assert last <= record.origin.last_version <= ticket
            fresher += record.origin.last_version > last
    assert fresher > 0


def test_overdue_tickets_are_crafted_again_and_reported() -> None:
    shape = JobShape(rule=rule(8, 2, 2), num_attackers=3, hang_share=0.05)
    jobs = [Job(replace(shape, seed=seed)).run() for seed in range(8)]
    assert {job.learner.value for job in jobs} == {expected(shape)}
    told = [text for job in jobs for kind, text in job.events if kind == "re-crafted"]
    assert len(told) > 8
    assert re.match(r"ticket \d+: rank \d on memory-\d with tickets? \d+", told[0])


def test_batch_arriving_during_its_recrafting_takes_the_ticket_off_the_trainers_bench() -> None:
    shape = JobShape(rule=rule(8, 2, 2), num_attackers=4, hang_share=0.05)
    overtaken = 0
    for seed in range(20):
        job = Job(replace(shape, seed=seed)).run()
        again = {int(text.split()[1][:-1]) for kind, text in job.events if kind == "re-crafted"}
        overtaken += sum(r.origin.rank != 0 and r.ticket in again for r in job.records)
        assert job.learner.value == expected(shape)
    assert overtaken > 0


def test_nan_loss_names_step_and_ticket() -> None:
    job = Job(JobShape(rule=rule(4, 2, 1), num_attackers=2, nan_at=5))
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 5, ticket 5"):
        job.run()
    assert job.trainer.dispatcher.step == 5


def test_silent_attacker_is_named_with_its_host_and_tickets() -> None:
    shape = JobShape(
        rule=rule(4, 2, 1),
        num_attackers=1,
        silent=frozenset({1}),
        deadline_seconds=30.0,
        survives_losses=False,
    )
    words = r"rank 1 on memory-1 with tickets 0, 1 has not answered for 30 s: go on with --resume"
    with pytest.raises(SilentRankError, match=words):
        Job(shape).run()


def test_attacker_that_answers_but_takes_longer_than_the_deadline_is_not_given_up() -> None:
    shape = JobShape(
        rule=rule(4, 2, 1),
        num_attackers=1,
        num_tickets=6,
        num_steps=12,
        trainer_crafts=False,
        hang_share=1.0,
        deadline_seconds=60.0,
        survives_losses=False,
    )
    for seed in SEEDS[:3]:
        job = Job(replace(shape, seed=seed)).run()
        assert job.learner.value == expected(shape)
        assert "re-crafted" in [kind for kind, _ in job.events]


def test_snapshot_that_never_completes_ends_the_wait_for_it() -> None:
    shape = JobShape(
        rule=rule(4, 2, 1), num_attackers=1, deadline_seconds=5.0, snapshot_polls=10**9
    )
    with pytest.raises(DeadlineError, match="waited 10 s for "):
        Job(shape).run()


def pump_for_long(job: Job) -> None:
    """The trainer grants nothing, as while it evaluates, and only moves messages on."""
    for _ in range(100):
        job.now += job.shape.deadline_seconds / 20
        job.trainer.pump()
        for _ in range(10):
            job.let_others_work()


def test_waiting_attackers_hear_that_a_busy_trainer_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = JobShape(rule=rule(4, 2, 1), num_attackers=2, deadline_seconds=20.0)
    pump_for_long(Job(shape))
    monkeypatch.setattr(MemoryTrainerLink, "keep_alive", lambda self: None)
    with pytest.raises(DeadlineError, match="waited 20 s for a ticket from the trainer"):
        pump_for_long(Job(shape))


def attacker_alone(link: MemoryAttackerLink, seconds: float = 5.0) -> Attacker[object]:
    times = iter(range(1_000_000))
    return Attacker(
        rule=rule(4, 2, 1),
        mode=StalenessMode.FIXED,
        link=link,
        crafter=FakeCrafter(lambda: False),  # type: ignore[arg-type]
        host="host",
        deadline_seconds=seconds,
        clock=lambda: float(next(times)),
        sleep=lambda seconds: None,
    )


def network_of_one() -> MemoryNetwork:
    return MemoryNetwork(1, fake_shape(rule(4, 2, 1), 2))


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        ([], "a ticket from the trainer .rank 0."),
        ([Order(ticket=3, patient=False)], "parameters for ticket 3 from the trainer .rank 0."),
    ],
    ids=["without_grant", "without_parameters"],
)
def test_attacker_of_a_silent_trainer_says_what_it_waits_for(
    orders: list[Order], words: str
) -> None:
    network = network_of_one()
    network.words[1].extend(orders)
    with pytest.raises(DeadlineError, match=words):
        attacker_alone(network.attacker_link(1)).run()


class LateLink(MemoryAttackerLink):
    """Has no buffer free when first asked, as while a last send is not complete yet."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network, 1)
        self.network = network
        self.is_first = True

    def free_batch_slot(self) -> BatchSlot | None:
        if self.is_first:
            self.is_first = False
            self.network.words[1].extend([Order(ticket=2, patient=False), "last call"])
            return None
        return super().free_batch_slot()


def test_grant_that_comes_in_while_another_is_dropped_is_answered_too() -> None:
    network = network_of_one()
    link, trainer = LateLink(network), network.trainer_link()
    slot = trainer.free_parameter_slot()
    assert slot is not None
    slot.header["stop"], slot.header["version"] = Stop.FINISHED, 1
    trainer.broadcast(slot)
    trainer.grant(1, Order(ticket=1, patient=False))
    trainer.grant(1, Order(ticket=2, patient=False))
    network.words[1].pop()  # comes late: see LateLink
    attacker = attacker_alone(link)
    while 1 not in network.farewells:
        attacker.turn()
    assert [delivery.ticket for delivery in trainer.poll() if delivery.dropped] == [1, 2]
    assert network.farewells[1].tickets_dropped == 2


def test_largest_job_is_granted_no_more_than_the_window_at_the_start() -> None:
    shape = JobShape(rule=rule(3, 3, 1), num_attackers=7, outstanding=4)
    silent = replace(shape, silent=frozenset(range(1, 8)), deadline_seconds=5.0)
    job = Job(replace(silent, survives_losses=False))
    with pytest.raises(SilentRankError):
        job.run()
    assert job.link.num_grants == 4
