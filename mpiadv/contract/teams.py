"""Which ranks are a team: a trainer and its attackers. Pure.

By default hosts are teams: versions and batches stay within a host then, and what crosses the
network are the trainers' sums.
"""

from collections.abc import Sequence
from enum import Enum

from mpiadv.process.errors import UserError
from mpiadv.process.words import counted


class Layout(Enum):
    """Where the ranks of a team are."""

    HOSTS = "hosts"
    """On hosts of its own, or on a part of one."""
    FIRST = "first"
    """The trainers are the first ranks; the others take turns in joining them."""


def place_teams(hosts: Sequence[str], num_teams: int, layout: Layout) -> list[list[int]]:
    """The ranks of each team, its trainer first, rank 0 that of the first; `hosts` by rank.

    Raises:
        UserError: so many teams cannot be made of these ranks; the text says how many can.
    """
    ranks = len(hosts)
    if num_teams > ranks:
        raise UserError(
            f"training.trainers={num_teams} are more than there are ranks, {ranks}: use "
            f"training.trainers<={_power_of_two(ranks)}, or start {num_teams} ranks or more"
        )
    if layout is Layout.FIRST:
        return [list(range(team, ranks, num_teams)) for team in range(num_teams)]
    by_host: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        by_host.setdefault(host, []).append(rank)
    groups = list(by_host.values())
    if num_teams <= len(groups):
        return _of_whole_hosts(groups, num_teams)
    return _of_parts(groups, num_teams)


def _of_whole_hosts(groups: Sequence[Sequence[int]], num_teams: int) -> list[list[int]]:
    each, left_over = divmod(len(groups), num_teams)
    if left_over:
        working = [t for t in _powers(len(groups)) if len(groups) % t == 0]
        raise UserError(
            f"training.trainers={num_teams} cannot share {counted(len(groups), 'host')} evenly: "
            f"use training.trainers={_either(working)}, or training.team_layout=first"
        )
    return [
        [rank for group in groups[team * each : (team + 1) * each] for rank in group]
        for team in range(num_teams)
    ]


def _of_parts(groups: Sequence[Sequence[int]], num_teams: int) -> list[list[int]]:
    """Several teams on each host, whose ranks they share out evenly."""
    each, left_over = divmod(num_teams, len(groups))
    fewest = min(map(len, groups))
    if left_over or each > fewest:
        working = [
            t
            for t in _powers(num_teams)
            if len(groups) % t == 0 or (t % len(groups) == 0 and t // len(groups) <= fewest)
        ]
        raise UserError(
            f"training.trainers={num_teams} cannot be shared out evenly to "
            f"{counted(len(groups), 'host')}, of which one has {counted(fewest, 'rank')}: use "
            f"training.trainers={_either(working)}, or training.team_layout=first"
        )
    teams = []
    for group in groups:
        size, longer = divmod(len(group), each)
        start = 0
        for part in range(each):
            end = start + size + (part < longer)
            teams.append(list(group[start:end]))
            start = end
    return teams


def _powers(most: int) -> list[int]:
    return [2**level for level in range(most.bit_length()) if 2**level <= most]


def _power_of_two(most: int) -> int:
    return _powers(most)[-1]


def _either(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
