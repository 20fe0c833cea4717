"""A job on a row of rank counts: forecasts, speed-ups and what limits them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mpiadv.forecast.job import Forecast, Job, Network
from mpiadv.forecast.limits import Cause, Choice, Limit, Remedy, limit_of, remedies_of
from mpiadv.forecast.simulation import simulate

MOST_RANKS = 64
"""Of the rank counts that are shown unasked."""


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What to expect on one number of ranks."""

    forecast: Forecast
    limit: Limit
    num_hosts: int
    remedies: Sequence[Remedy] = ()

    @property
    def ranks(self) -> int:
        return self.forecast.ranks

    @property
    def sent_bytes_per_second(self) -> float:
        """Parameters out of the trainer's host."""
        return self.forecast.sent_bytes / self.forecast.step_seconds

    @property
    def received_bytes_per_second(self) -> float:
        """Batches into the trainer's host."""
        return self.forecast.received_bytes / self.forecast.step_seconds


def usual_ranks(job: Job) -> list[int]:
    """Powers of two, up to the number from which more ranks are no faster."""
    enough = min(MOST_RANKS, max(2, job.feeding_attackers + 1))
    powers = [2**power for power in range(enough.bit_length()) if 2**power < enough]
    return [*powers, enough]


def look_ahead(
    job: Job, network: Network, ranks: Sequence[int], choices: Sequence[Choice] = ()
) -> list[Prospect]:
    """What to expect on each of these numbers of ranks; `choices` may remedy what limits it."""
    prospects = [_prospect(job, network, number) for number in ranks]
    wanted = worth_a_warning(prospects)
    return [
        replace(each, remedies=remedies_of(job, network, each.limit, choices))
        if each in wanted
        else each
        for each in prospects
    ]


def worth_a_warning(prospects: Sequence[Prospect]) -> list[Prospect]:
    """Of each cause that settings or the network may remedy, the largest number of ranks."""
    last = {each.limit.cause: each for each in prospects}
    return [each for cause, each in last.items() if cause not in (Cause.RANKS, Cause.TRAINER)]


def _prospect(job: Job, network: Network, ranks: int) -> Prospect:
    forecast = simulate(job, ranks, network)
    limit = limit_of(job, network, forecast)
    return Prospect(forecast=forecast, limit=limit, num_hosts=network.num_hosts(ranks))
