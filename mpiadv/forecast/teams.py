"""A job in virtual time, with one trainer or several, which meet at the end of each step. Pure."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from mpiadv.forecast.job import Forecast, Job, Network
from mpiadv.forecast.simulation import EVEN_STEPS, Simulation
from mpiadv.forecast.transfers import Clock, Transfers

_MOST_REMEMBERED = 1024
"""Forecasts: remedies for one limit are tried for another, too."""


class Meeting:
    """Where the trainers of all teams add what their tickets come to, and go on together."""

    def __init__(self, clock: Clock, num_teams: int, seconds: float) -> None:
        self._clock = clock
        self._num_teams = num_teams
        self._seconds = seconds
        self._there: list[Callable[[], None]] = []

    def arrive(self, go_on: Callable[[], None]) -> None:
        """A trainer is through with its share of a step, and goes on once the sum is there."""
        self._there.append(go_on)
        if len(self._there) == self._num_teams:
            together, self._there = self._there, []
            for each in together:
                self._clock.after(self._seconds, each)


def simulate(
    job: Job, ranks: int, network: Network | None = None, *, num_steps: int = EVEN_STEPS
) -> Forecast:
    """What to expect of `job` on so many ranks, which the teams share out evenly.

    A long job is simulated until it runs evenly, and for `num_steps` more, which are looked at;
    the rest of it goes on so. Of several teams the first one's figures are told.
    """
    return _simulate(job, ranks, network or Network(), num_steps)


@lru_cache(_MOST_REMEMBERED)
def _simulate(job: Job, ranks: int, network: Network, num_steps: int) -> Forecast:
    teams = job.rule.num_teams
    if teams == 1:
        return Simulation(job, ranks, Transfers(network)).forecast(num_steps)
    clock = Clock()
    meeting = Meeting(clock, teams, network.exchange_seconds(job.sum_bytes, ranks, teams))
    simulations = [
        Simulation(
            replace(job, seed=job.seed + team),
            size,
            Transfers(network),
            clock=clock,
            meet=meeting.arrive,
        )
        for team, size in enumerate(network.team_sizes(ranks, teams))
    ]
    seen = simulations[0].forecast(num_steps)
    crossing = network.exchanged_bytes(job.sum_bytes, ranks, teams)
    return replace(
        seen,
        ranks=ranks,
        sent_bytes=seen.sent_bytes + crossing,
        received_bytes=seen.received_bytes + crossing,
    )
