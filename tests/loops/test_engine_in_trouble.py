"""The real trainer and attackers joined in memory, some of which die, hang, or are late."""

import re
from dataclasses import replace

import pytest
from fake_work import FakeCrafter, fake_shape, sequential_values
from in_memory_job import BREAKAGES, Job, JobShape
from job_shapes import disturbed, each_shape, expected, left_over, rule, seeds_of, step_at
from made_records import version_header
from memory_network import MemoryNetwork

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.channel import Tag
from mpiadv.comm.links import BatchSlot
from mpiadv.comm.messages import Call, Fate, Stop, Word
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.contract.accounts import StepRecord
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.turns import Grant
from mpiadv.loops.attacker import Attacker
from mpiadv.process.errors import DeadlineError, SilentRankError

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
    for seed in seeds_of(shape):
        job = Job(replace(disturbed(shape, 4, seed), deaths=deaths)).run()
        assert job.learner.value == expected(shape)
        told = [text for kind, text in job.events if kind == "lost"]
        assert len(told) == len(set(told)) <= len(deaths)
        assert all(re.match(r"rank \d on memory-\d died: ", text) for text in told)
        assert set(job.farewells) >= {1, 2, 3, 4} - deaths.keys()
        assert left_over(job) == 0


TWO_HOSTS_BY_BROADCAST, THREE_HOSTS_BY_BROADCAST = 0, 1
"""Seeds of jobs of five ranks: 0 and 1 to 4, and 0 and 1, 2 and 4, 3."""


@pytest.mark.parametrize("and_its_successor", [False, True], ids=["alone", "and_its_successor"])
@pytest.mark.parametrize("seed", [TWO_HOSTS_BY_BROADCAST, THREE_HOSTS_BY_BROADCAST])
def test_leader_may_die_at_any_step(seed: int, and_its_successor: bool) -> None:
    shape = JobShape(rule=rule(8, 2, 2), num_attackers=4, seed=seed)
    value = expected(shape)
    first, second, *_ = Job(shape).network.groups[1]
    for step in range(41):
        deaths = {first: step} | ({second: step + 1} if and_its_successor else {})
        job = Job(replace(shape, deaths=deaths))
        assert job.network.by_broadcast
        assert job.run().learner.value == value
        assert set(job.farewells) >= {1, 2, 3, 4} - deaths.keys()
        assert left_over(job) == 0


STOPS = {
    "training": ({2: 0.18}, frozenset[int]()),
    "at_the_start": ({2: 0.0}, frozenset[int]()),
    "at_the_end": ({2: 1.0}, frozenset[int]()),
    "parting": ({}, frozenset({2})),
}
"""Shares of the training steps after which attackers stop; who stops when all say farewell."""


def test_nobody_is_late_for_the_time_that_the_trainer_evaluates() -> None:
    class Evaluating(Job):
        def _on_step(self, record: StepRecord) -> None:
            super()._on_step(record)
            self.now += 50.0

    shape = JobShape(rule=rule(8, 8, 4), num_attackers=2, overdue_seconds=20.0)
    assert [text for kind, text in Evaluating(shape).run().events if kind == "late"] == []


@pytest.mark.parametrize(("stops", "parting"), STOPS.values(), ids=STOPS)
@each_shape
def test_attacker_that_does_not_answer_is_given_up_and_leaves_when_it_is_back(
    shape: JobShape, stops: dict[int, float], parting: frozenset[int]
) -> None:
    at = {rank: step_at(shape, share) for rank, share in stops.items()}
    for seed in seeds_of(shape):
        calm = replace(disturbed(shape, 3, seed), hang_share=0.0, deadline_seconds=4.0)
        job = Job(replace(calm, stops=at, stops_parting=parting)).run()
        assert job.learner.value == expected(shape)
        if 2 not in job.farewells:
            (text,) = [text for kind, text in job.events if kind == "lost"]
            assert re.match("rank 2 on memory-2 has not answered for 4 s and is given up: ", text)
        assert set(job.farewells) | set(job.dismissed) | set(job.attackers) == {1, 2, 3}


DOUBTED = (
    r"(rank \d on memory-\d) (sent a batch that did not arrive whole|sent ticket \d+, which it was "
    r"not granted) and is given up: "
)


@pytest.mark.parametrize("breakage", BREAKAGES)
@each_shape
def test_batch_that_does_not_arrive_as_it_was_sent_is_the_loss_of_its_sender(
    shape: JobShape, breakage: str
) -> None:
    for seed in seeds_of(shape)[:2]:
        broken = replace(disturbed(shape, 4, seed), breaks={1: 9, 3: 20}, breakage=breakage)
        job = Job(broken).run()
        assert job.learner.value == expected(shape)
        told = [re.match(DOUBTED, text) for kind, text in job.events if kind == "lost"]
        named = sorted(match[1] for match in told if match)
        assert named == [f"rank {rank} on memory-{rank}" for rank in sorted(job.broken)]
        assert len(told) == len(named)
        assert job.link.num_held == 0


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_batch_that_does_not_arrive_as_it_was_sent_ends_the_job_that_cannot_do_without_its_sender(
    breakage: str,
) -> None:
    shape = JobShape(rule=rule(8, 8, 4), num_attackers=2, survives_losses=False)
    job = Job(replace(shape, breaks={1: 9}, breakage=breakage))
    with pytest.raises(SilentRankError, match=r"rank 1 on memory-1 with .* sent .*: go on with"):
        job.run()
    values = sequential_values(shape.rule, shape.training_steps, shape.settings_at)
    assert job.learner.value == values[job.trainer.dispatcher.step]


def test_job_that_was_stopped_as_a_whole_gives_nobody_up() -> None:
    shape = JobShape(rule=rule(8, 8, 4), num_attackers=2, deadline_seconds=4.0, seed=19)
    job = Job(shape)
    assert job.network.groups == [[0], [1], [2]] and not job.network.by_broadcast
    job.trainer.publish_due()
    job.trainer.pump()
    job.now += 1000.0
    assert min(job.link.silent_seconds(attacker) for attacker in (1, 2)) >= 1000.0
    job.trainer.supervision.look_after()
    assert job.run().learner.value == expected(shape)
    assert "lost" not in [kind for kind, _ in job.events]


def test_late_attacker_is_named_once_with_its_ticket_and_its_last_sign_of_life() -> None:
    shape = JobShape(
        rule=rule(8, 8, 4), num_attackers=2, stops={2: 9}, deadline_seconds=50.0, training_steps=60
    )
    job = Job(replace(shape, overdue_seconds=3.0)).run()
    assert job.learner.value == expected(shape)
    (late,) = [text for kind, text in job.events if kind == "late"]
    assert re.fullmatch(
        r"rank 2 on memory-2 has had ticket \d+ for 3\.\d s, its last sign of life was \d+\.\d s "
        "ago: the trainer crafts the ticket too",
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
        overtaken += sum(r.origin.rank != 0 and r.step in again for r in job.records)
        assert job.learner.value == expected(shape)
    assert overtaken > 0


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
        training_steps=6,
        num_steps=12,
        trainer_crafts=False,
        hang_share=1.0,
        deadline_seconds=60.0,
        survives_losses=False,
    )
    for seed in range(3):
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
    monkeypatch.setattr(TrainerLink, "keep_alive", lambda self: None)
    with pytest.raises(DeadlineError, match="waited 20 s for a ticket from the trainer"):
        pump_for_long(Job(shape))


def attacker_alone(link: AttackerLink, seconds: float = 5.0) -> Attacker[object]:
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


def granted(ticket: int) -> Call:
    return Call(word=Word.GRANT, grant=Grant(ticket=ticket, attacker=1, patient=False))


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        pytest.param([], "a ticket from the trainer", id="without_grant"),
        pytest.param([granted(3)], "parameters for ticket 3 from the trainer"),
    ],
)
def test_attacker_of_a_silent_trainer_says_what_it_waits_for(calls: list[Call], words: str) -> None:
    network = network_of_one()
    for call in calls:
        network.channels[0].say(1, call, Tag.CALL)
    with pytest.raises(DeadlineError, match=words):
        attacker_alone(network.attacker_link(1)).run()


class LateLink(AttackerLink):
    """Has no buffer free when first asked, as while a last send is not complete yet."""

    def __init__(self, network: MemoryNetwork, come_late: list[Call]) -> None:
        super().__init__(**network.attacker_parts(1))
        self._trainer, self._come_late = network.channels[0], come_late

    def free_batch_slot(self) -> BatchSlot | None:
        if not self._come_late:
            return super().free_batch_slot()
        while self._come_late:
            self._trainer.say(1, self._come_late.pop(0), Tag.CALL)
        return None


def test_grant_that_comes_in_while_another_is_dropped_is_answered_too() -> None:
    network = network_of_one()
    late = Grant(attacker=1, ticket=2, patient=False)
    calls = [Call(word=Word.GRANT, grant=late), Call(word=Word.LAST_CALL)]
    link, trainer = LateLink(network, calls), network.trainer_link()
    slot = trainer.free_parameter_slot()
    assert slot is not None
    slot.header = version_header(1, stop=Stop.FINISHED)
    trainer.broadcast(slot)
    for grant in (Grant(attacker=1, ticket=1, patient=False), late):
        trainer.grant(grant)
    network.queues[0, 1][Tag.CALL].pop()  # comes late: see LateLink
    attacker, answers = attacker_alone(link), []
    while 1 not in trainer.farewells():
        attacker.turn()
        answers += trainer.poll()
    told = [(answer.ticket, answer.slot.header.fate) for answer in answers]
    assert told == [(1, Fate.DROPPED), (2, Fate.DROPPED)]
