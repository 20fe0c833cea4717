"""Several trainers: the bits of one, for any number of them, of ranks, of hosts and of starts."""

from pathlib import Path

import pytest
from end_to_end import Finished, Start, assert_same_bits, settled
from plain_accumulation import accumulate_plainly
from team_cases import (
    ALL,
    CASES,
    CHAIN,
    FEW_CASES,
    INTERRUPTED,
    LAID_OUT,
    LAYOUTS,
    PLAIN,
    all_starts,
    folder_of,
)  # fmt: skip

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]


def starts(folder: Path) -> list[Start]:
    """All runs, on up to eight ranks."""
    return all_starts()


def _first_of(runs: Path, case: str) -> Finished:
    """That of one trainer."""
    return Finished(path=runs / folder_of(case, *ALL[case][0]))


@pytest.mark.parametrize("case", ALL)
def test_hash_and_log_are_the_same_for_any_number_of_trainers(runs: Path, case: str) -> None:
    for trainers, ranks in ALL[case][1:]:
        run = Finished(path=runs / folder_of(case, trainers, ranks))
        assert run.codes == [[0] * ranks]
        assert_same_bits(run, _first_of(runs, case))
        if case == "everything":
            assert run.ema_hash == _first_of(runs, case).ema_hash


def test_hash_is_that_of_a_plain_loop(runs: Path) -> None:
    words = [*FEW_CASES[PLAIN], f"output={runs / 'none'}"]
    assert _first_of(runs, PLAIN).hash == accumulate_plainly(settled(words), 4)


def test_every_case_trains_to_bits_of_its_own(runs: Path) -> None:
    assert len({_first_of(runs, case).hash for case in ALL}) == len(ALL)


@pytest.mark.parametrize("hosts", LAYOUTS)
def test_teams_may_be_anywhere(runs: Path, hosts: str) -> None:
    run = Finished(path=runs / f"on-{hosts}")
    assert run.codes == [[0] * len(hosts)]
    assert_same_bits(run, _first_of(runs, LAID_OUT))


def test_interrupted_run_goes_on_with_other_teams(runs: Path) -> None:
    run = Finished(path=runs / f"{INTERRUPTED}-interrupted")
    assert [codes[0] for codes in run.codes] == [75, 75, 75, 0]
    assert all(len({*codes}) == 1 for codes in run.codes), "all ranks end alike"
    assert_same_bits(run, _first_of(runs, INTERRUPTED))
    stops = [event for event in run.table("events") if event["kind"] == b"interrupted"]
    # With others it is agreed on in the exchange of the next step.
    expected = [stop + (trainers > 1) for (trainers, _), stop in CHAIN if stop]
    assert [int(stop["step"]) for stop in stops] == expected


def test_tickets_of_all_teams_are_told_by_the_ranks_of_the_job(runs: Path) -> None:
    run = Finished(path=runs / folder_of("refreshed", 4, 8))
    workers = {int(rank) for rank in run.table("attackers")["rank"]}
    assert workers == {1, 3, 5, 7}, "two ranks a team, the first of which trains"
    rows, alone = run.table("tickets"), _first_of(runs, "refreshed").table("tickets")
    assert rows["ticket"].tolist() == list(range(4 * len(run.table("train"))))
    assert rows["step"].tolist() == [ticket // 4 for ticket in rows["ticket"]]
    assert {(int(row["ticket"]) % 4, int(row["rank"]) // 2) for row in rows} == {
        (team, team) for team in range(4)
    }
    for name in ("first_version", "last_version", "gradient_magnitude"):
        assert rows[name].tolist() == alone[name].tolist()
    assert run.table("train")["exchange_seconds"].sum() > 0
    assert (_first_of(runs, "refreshed").table("train")["exchange_seconds"] == 0).all()


def test_probes_are_those_of_one_trainer(runs: Path) -> None:
    found = []
    for trainers, ranks in ((1, 1), (2, 2)):
        rows = Finished(path=runs / folder_of("refreshed", trainers, ranks)).table("fresh")
        told = [tuple(row[name] for name in ("step", "accuracy", "loss")) for row in rows]
        found.append(sorted(told))
    assert found[0] == found[1] != []


def test_all_cases_are_run() -> None:
    assert CASES.keys() < ALL.keys()
