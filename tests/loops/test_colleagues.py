"""Trainers of several teams, in memory: what they tell each other, and what ends them."""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest
from fake_work import fake_shape
from job_shapes import rule
from made_records import batch_header
from memory_network import MemoryNetwork

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.comm.notes import Halt
from mpiadv.comm.roster import Roster
from mpiadv.comm.sums import ChannelSums, IsReady, at_once
from mpiadv.contract.accounts import TicketTold
from mpiadv.loops.colleagues import Alone, Mine, SeveralTrainers
from mpiadv.process.errors import (
    BrokenBitsError,
    ColleagueLostError,
    SampleError,
    SilentRankError,
    UnreadableError,
    UserError,
)

DEADLINE_SECONDS = 100.0
TICKETS = 2
"""Of each trainer."""


class FakeSums:
    """What a trainer's tickets come to: its number, as a float."""

    sum_bytes = 64

    def __init__(self, team: int) -> None:
        self.team = team
        self.bits = 7

    def told(self) -> list[TicketTold]:
        numbers = range(TICKETS * self.team, TICKETS * (self.team + 1))
        return [TicketTold(loss=n, accuracy=0.5, gradient_magnitude=None) for n in numbers]

    def give_sum(self, values: Bytes) -> IsReady:
        values.view(np.float32)[:] = self.team
        return at_once

    def add_sum(self, values: Bytes, start: int, theirs: Bytes) -> None:
        mine = values[start : start + theirs.size].view(np.float32)
        mine += theirs.view(np.float32)

    def fingerprint(self) -> int:
        return self.bits


class Trainers:
    """So many of them, and the time that they share."""

    def __init__(self, count: int) -> None:
        self.now = 0.0
        random = Random(count)
        self.network = MemoryNetwork(
            count - 1,
            fake_shape(rule(0, 0, 1), 1),
            delay=lambda: random.random() < 0.2,
            clock=lambda: self.now,
        )
        self.learners = [FakeSums(team) for team in range(count)]
        self.events: list[tuple[int, str, str]] = []
        numbers = [10 * team for team in range(count)]
        roster = Roster(size=count, hosts=[f"n{team}" for team in range(count)], numbers=numbers)
        self.all = [
            SeveralTrainers(
                ChannelSums(channel, count, plain_memory),
                learner,
                roster,
                num_tickets=TICKETS * count,
                allocate=plain_memory,
                deadline_seconds=DEADLINE_SECONDS,
                on_event=lambda kind, text, team=team: self.events.append((team, kind, text)),
                clock=lambda: self.now,
            )
            for team, (channel, learner) in enumerate(
                zip(self.network.channels, self.learners, strict=True)
            )
        ]

    def begin(self, step: int, said: Sequence[Mine], *, without_share: Sequence[int] = ()) -> None:
        for team, (trainer, mine) in enumerate(zip(self.all, said, strict=True)):
            numbers = range(TICKETS * team, TICKETS * (team + 1))
            headers = [batch_header(number, rank=0, step=step) for number in numbers]
            trainer.begin(step, () if team in without_share else headers, mine)

    def settle(self) -> None:
        for _ in range(10_000):
            if all([trainer.poll() for trainer in self.all]):
                return
        raise AssertionError("it does not come to an end")


@pytest.fixture
def four() -> Trainers:
    return Trainers(4)


def test_all_hear_of_all_tickets_and_have_the_sum(four: Trainers) -> None:
    for step in range(3):
        four.begin(step, [Mine(wait_seconds=team, total_seconds=5.0) for team in range(4)])
        four.settle()
        for team, trainer in enumerate(four.all):
            summed = trainer.take()
            assert [header.origin.ticket for header in summed.headers] == list(range(8))
            assert [ticket.loss for ticket in summed.tickets] == list(range(8))
            assert summed.values is not None
            assert (summed.values.view(np.float32) == 0 + 1 + 2 + 3).all()
            assert not summed.is_last and summed.fault is None
            others = {each.rank: each.wait_seconds for each in summed.others}
            assert others == {10 * other: other for other in range(4) if other != team}


def test_request_of_one_ends_all_after_the_step(four: Trainers) -> None:
    four.begin(1, [Mine(halt=Halt.INTERRUPTED if team == 2 else Halt.NO) for team in range(4)])
    four.settle()
    assert all(trainer.take().is_last for trainer in four.all)


@pytest.mark.parametrize(
    ("halt", "kind"),
    [
        (Halt.SAMPLES, SampleError),
        (Halt.UNREAD, UnreadableError),
        (Halt.REFUSED, UserError),
        (Halt.SILENT, SilentRankError),
    ],
)
def test_fault_of_one_is_that_of_all(four: Trainers, halt: Halt, kind: type[Exception]) -> None:
    said = [Mine(), Mine(halt=halt, fault="image 3 is blank"), Mine(), Mine()]
    four.begin(1, said, without_share=[1])
    four.settle()
    for trainer in four.all:
        summed = trainer.take()
        assert type(summed.fault) is kind and str(summed.fault) == "image 3 is blank"
        assert not summed.headers and summed.values is None


def test_events_of_one_reach_the_others_one_with_each_share(four: Trainers) -> None:
    four.all[3].tell_event("late", "first")
    four.all[3].tell_event("lost", "second")
    four.all[3].tell_event("lost", "third")
    for step in range(2):
        four.begin(step, [Mine()] * 4)
        four.settle()
        for trainer in four.all:
            trainer.take()
    assert [event for event in four.events if event[0] == 0] == [
        (0, "late", "first"), (0, "lost", "second"),
    ]  # fmt: skip
    assert not [event for event in four.events if event[0] == 3]
    assert four.all[3].take_events() == [("lost", "third")]


def _broken(trainers: Trainers, team: int) -> str:
    trainers.learners[team].bits = 8
    trainers.begin(50, [Mine()] * len(trainers.all))
    trainers.settle()
    texts = set()
    for trainer in trainers.all:
        with pytest.raises(BrokenBitsError) as error:
            trainer.take()
        texts.add(str(error.value))
    (text,) = texts
    return text


def test_other_bits_name_the_rank_that_has_them(four: Trainers) -> None:
    four.begin(0, [Mine()] * 4)
    four.settle()
    for trainer in four.all:
        trainer.take()
    assert _broken(four, 3).startswith(
        "after step 50 the parameters on rank 30 on n3 are not those on rank 0 on n0, as they were "
        "after step 0: memory or processor may be broken there,"
    )


def test_of_two_with_other_bits_nobody_knows_which_is_right() -> None:
    assert "may be broken on one side or the other" in _broken(Trainers(2), 0)


def test_bits_between_two_comparisons_are_not_looked_at(four: Trainers) -> None:
    four.learners[3].bits = 8
    four.begin(49, [Mine()] * 4)
    four.settle()
    assert [len(trainer.take().headers) for trainer in four.all] == [8] * 4


@pytest.mark.parametrize(("victim", "is_lead"), [(0, True), (2, False)])
def test_trainer_that_dies_ends_all_others_once(four: Trainers, victim: int, is_lead: bool) -> None:
    four.begin(1, [Mine()] * 4)
    four.network.kill(victim)
    for team, trainer in enumerate(four.all):
        if team == victim:
            continue
        with pytest.raises(
            ColleagueLostError, match=rf"rank {10 * victim} on n.*was lost"
        ) as error:
            _poll_often(trainer)
        assert error.value.is_lead == is_lead
        assert not trainer.is_under_way
        _poll_often(trainer)  # whoever saves what there is is not disturbed
        trainer.keep_alive()


def _poll_often(trainer: SeveralTrainers) -> None:
    for _ in range(200):
        assert not trainer.poll()


def _wait(four: Trainers, seconds: float, look: Callable[[], object], pause: float = 1.0) -> None:
    for _ in range(int(seconds / pause)):
        four.now += pause
        look()


def test_trainer_that_says_nothing_for_a_deadline_ends_the_others(four: Trainers) -> None:
    four.begin(1, [Mine()] * 4)

    def look() -> None:
        for trainer in four.all[:3]:
            trainer.keep_alive()
            trainer.poll()

    with pytest.raises(ColleagueLostError, match=r"rank 30 on n3.*has not answered for 100 s"):
        _wait(four, 3 * DEADLINE_SECONDS, look)


def test_trainer_that_is_late_and_says_so_is_waited_for(four: Trainers) -> None:
    for trainer in four.all[:3]:
        trainer.begin(1, [batch_header(0, rank=0), batch_header(1, rank=0)], Mine())

    def look() -> None:
        for trainer in four.all:
            trainer.keep_alive()
            trainer.poll()

    _wait(four, 5 * DEADLINE_SECONDS, look)


def test_time_in_which_the_whole_job_was_stopped_is_nobodys_silence(four: Trainers) -> None:
    four.begin(1, [Mine()] * 4)
    four.now += 50 * DEADLINE_SECONDS
    four.settle()
    assert all(trainer.take().headers for trainer in four.all)


def test_one_that_is_freed_says_nothing_more(four: Trainers) -> None:
    four.all[0].free()
    four.now += DEADLINE_SECONDS
    four.all[0].keep_alive()
    assert not four.all[0].poll()
    assert not any(four.network.queues.values())


def test_trainer_that_is_alone_has_its_own() -> None:
    alone = Alone(FakeSums(0))
    headers = [batch_header(0, rank=0), batch_header(1, rank=0)]
    assert not alone.poll()
    alone.begin(3, headers, Mine())
    assert alone.poll()
    summed = alone.take()
    assert list(summed.headers) == headers and summed.values is None
    assert [ticket.loss for ticket in summed.tickets] == [0, 1] and not alone.poll()
