"""The table of ranks at the end of a run."""

from dataclasses import replace

import pytest
from made_records import made

from mpiadv.comm.messages import Farewell
from mpiadv.comm.roster import Absence, Roster
from mpiadv.contract.accounts import StepRecord, TicketRecord, TrainerSeconds
from mpiadv.session.speed_report import MOST_RANKS, RankSpeed, SpeedBook, speed_lines


def step_record(
    step: int, *, rank: int, craft_seconds: float, wait: float, total: float
) -> StepRecord:
    return made(
        StepRecord, step=step, ticket=step, rank=rank, craft_seconds=craft_seconds,
        wait_seconds=wait, total_seconds=total, exchange_seconds=0.0,
        tickets=(made(TicketRecord, rank=rank, craft_seconds=craft_seconds),),
    )  # fmt: skip


def farewell(*, craft: float, idle: float) -> Farewell:
    return made(
        Farewell, craft_seconds=craft, parameter_wait_seconds=idle / 4,
        trainer_wait_seconds=idle / 4, grant_wait_seconds=idle / 2,
    )  # fmt: skip


def test_ranks_are_told_by_what_training_took_from_them_and_what_they_said_at_the_end() -> None:
    roster = Roster(size=4, hosts=["n1", "n1", "n2", "n2"])
    roster.lose(3, Absence.DIED)
    book = SpeedBook()
    for step, (rank, seconds) in enumerate([(1, 0.2), (2, 0.4), (1, 0.1), (3, 0.5), (0, 0.3)]):
        book.add(step_record(step, rank=rank, craft_seconds=seconds, wait=0.05, total=0.5))
    farewells = {1: farewell(craft=3.0, idle=1.0), 2: farewell(craft=1.0, idle=0.0)}
    assert speed_lines(book.speeds(roster, farewells)) == [
        "rank  host  tickets  s per ticket    idle",
        "0     n1          1           0.3  10.0 %",
        "1     n1          2          0.15  25.0 %",
        "2     n2          1           0.4   0.0 %",
        "3     n2          1           0.5    lost",
    ]


def test_rank_that_crafted_nothing_has_no_seconds_per_ticket() -> None:
    roster = Roster(size=2, hosts=["n1", "n1"])
    lines = speed_lines(SpeedBook().speeds(roster, {1: farewell(craft=0.0, idle=2.0)}))
    assert lines[2].split() == ["1", "n1", "0", "-", "100.0", "%"]


def test_trainer_that_had_no_step_to_do_is_not_lost() -> None:
    roster = Roster(size=2, hosts=["n1", "n1"])
    lines = speed_lines(SpeedBook().speeds(roster, {1: farewell(craft=0.0, idle=2.0)}))
    assert lines[1].split() == ["0", "n1", "0", "-", "-"]


def test_rank_that_is_alone_has_no_table() -> None:
    assert speed_lines(SpeedBook().speeds(Roster(size=1, hosts=["n1"]), {})) == []


def test_many_ranks_are_told_by_host() -> None:
    trainer = RankSpeed(rank=0, host="n0", tickets=2, craft_seconds=1.0, idle=0.01, trains=True)
    one = RankSpeed(rank=1, host="n0", tickets=10, craft_seconds=5.0, idle=0.1)
    others = [
        replace(one, rank=rank, host="n1", craft_seconds=float(rank), idle=None)
        for rank in range(2, MOST_RANKS + 1)
    ]
    assert speed_lines([trainer, one, *others]) == [
        "host     ranks  tickets      s per ticket    idle",
        "trainer  n0           2               0.5   1.0 %",
        "n0       1           10               0.5  10.0 %",
        "n1       15         150  0.9 (0.2 to 1.6)    lost",
    ]


def test_several_trainers_are_marked_and_told_together_where_ranks_are_many() -> None:
    book = SpeedBook()
    record = step_record(0, rank=1, craft_seconds=0.5, wait=0.1, total=0.5)
    other = TrainerSeconds(rank=2, wait_seconds=0.2, total_seconds=0.4)
    book.add(replace(record, exchange_seconds=0.15, others=(other,)))
    roster = Roster(size=3, hosts=["n1", "n1", "n2"])
    speeds = book.speeds(roster, {1: farewell(craft=1.0, idle=1.0)}, trainers=(0, 2))
    assert speed_lines(speeds) == [
        "rank      host  tickets  s per ticket    idle",
        "0 trains  n1          0             -  50.0 %",
        "1         n1          1           0.5  50.0 %",
        "2 trains  n2          0             -  50.0 %",
    ]
    many = [replace(speeds[1], rank=rank, host="n3") for rank in range(3, MOST_RANKS + 2)]
    assert speed_lines([*speeds, *many])[1].split() == ["trainers", "2", "0", "-", "50.0", "%"]


@pytest.mark.parametrize("size", [2, MOST_RANKS, MOST_RANKS + 1])
def test_every_rank_counts_once(size: int) -> None:
    speeds = [
        RankSpeed(rank=r, host=f"n{r}", tickets=1, idle=0.0, trains=r == 0) for r in range(size)
    ]
    assert len(speed_lines(speeds)) == 1 + size
