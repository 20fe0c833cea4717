"""Which ranks are a team, and what is refused."""

import pytest

from mpiadv.contract.teams import Layout, place_teams
from mpiadv.process.errors import UserError


@pytest.mark.parametrize(
    ("hosts", "num_teams", "teams"),
    [
        ("a", 1, [[0]]),
        ("aabb", 1, [[0, 1, 2, 3]]),
        ("aabb", 2, [[0, 1], [2, 3]]),
        ("abab", 2, [[0, 2], [1, 3]]),
        ("aaaaa", 2, [[0, 1, 2], [3, 4]]),
        ("aaabbb", 4, [[0, 1], [2], [3, 4], [5]]),
        ("aabbccdd", 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("abcdabcd", 4, [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ],
)
def test_hosts_are_teams(hosts: str, num_teams: int, teams: list[list[int]]) -> None:
    assert place_teams(hosts, num_teams, Layout.HOSTS) == teams


def test_first_ranks_train_and_others_take_turns() -> None:
    assert place_teams("aabbc", 2, Layout.FIRST) == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize(
    ("hosts", "num_teams", "told"),
    [
        ("aab", 4, "more than there are ranks, 3: use training.trainers<=2, or start 4 ranks"),
        ("abc", 2, "cannot share 3 hosts evenly: use training.trainers=1, or training.team"),
        ("aabbccddeeff", 4, "cannot share 6 hosts evenly: use training.trainers=1 or 2, or"),
        ("aaaab", 4, "to 2 hosts, of which one has 1 rank: use training.trainers=1 or 2, or"),
        ("aaabc", 4, "to 3 hosts, of which one has 1 rank: use training.trainers=1, or"),
    ],
)
def test_wrong_layouts_are_refused_with_numbers_that_work(
    hosts: str, num_teams: int, told: str
) -> None:
    with pytest.raises(UserError) as refusal:
        place_teams(hosts, num_teams, Layout.HOSTS)
    assert told in str(refusal.value)


@pytest.mark.parametrize("hosts", ["a" * 12, "ab" * 6, "aabbcc" * 2, "abcdef" * 2, "aaaabc"])
@pytest.mark.parametrize("num_teams", [1, 2, 4, 8])
@pytest.mark.parametrize("layout", Layout)
def test_every_rank_is_in_one_team_and_rank_0_leads(
    hosts: str, num_teams: int, layout: Layout
) -> None:
    try:
        teams = place_teams(hosts, num_teams, layout)
    except UserError:
        return
    assert sorted(rank for team in teams for rank in team) == list(range(len(hosts)))
    assert len(teams) == num_teams and all(teams) and teams[0][0] == 0
