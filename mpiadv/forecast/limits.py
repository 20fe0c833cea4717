"""A job on a row of rank counts: how fast, what limits it, what helps. Pure.

Limits are found by simulating the job without each of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.forecast.job import CARRIED_SHARE, Forecast, Job, Network
from mpiadv.forecast.teams import simulate

MOST_RANKS = 64
"""Of the rank counts that are shown unasked."""

FALLS_SHORT = 0.95
"""Below this share of the ideal speed-up a job is looked into."""

MATTERS = 0.03
"""A change of the speed-up by this share of the ideal one counts."""

MOST = 0.75
"""What accounts for this share of what is lost is called the limit."""

MOST_REMEDIES = 3

OLDEST = 32
"""No larger bound is proposed unasked: up to here Bhat, Tsipras and Madry (2019) saw no harm."""

TRIAL_STEPS = 150
"""Training steps that show whether something helps."""


class Cause(StrEnum):
    """What a job is limited by."""

    RANKS = "ranks"
    TRAINER = "trainer"
    NETWORK = "network"
    WINDOW = "window"
    FRESHNESS = "freshness"
    STALENESS = "staleness"
    """Window and freshness together."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Settings by their dotted keys, and the speed-up with them over one rank with them."""

    settings: Mapping[str, int | str]
    speed_up: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings by their dotted keys, and the job with them."""

    settings: Mapping[str, int | str]
    job: Job


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What to expect on one number of ranks, what limits it, and the speed-up without that."""

    forecast: Forecast
    num_hosts: int
    speed_up: float
    ideal: float
    cause: Cause
    without: float
    needed_bytes_per_second: float = 0.0
    """On the busier direction of the link, without the limit."""
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
    trainers = job.rule.num_teams
    enough = max(trainers, min(MOST_RANKS, max(2, trainers * (job.feeding_attackers + 1))))
    powers = [2**power for power in range(enough.bit_length()) if trainers <= 2**power < enough]
    return [*powers, enough]


def look_ahead(
    job: Job, network: Network, ranks: Sequence[int], choices: Sequence[Choice] = ()
) -> list[Prospect]:
    """What to expect on each of these numbers of ranks; `choices` may remedy what limits it."""
    prospects = [prospect_of(job, network, simulate(job, number, network)) for number in ranks]
    wanted = worth_a_warning(prospects)
    return [
        replace(each, remedies=remedies_of(job, network, each, choices)) if each in wanted else each
        for each in prospects
    ]


def worth_a_warning(prospects: Sequence[Prospect]) -> list[Prospect]:
    """Of each cause that settings or the network may remedy, the largest number of ranks."""
    last = {each.cause: each for each in prospects}
    return [each for cause, each in last.items() if cause not in (Cause.RANKS, Cause.TRAINER)]


def prospect_of(job: Job, network: Network, seen: Forecast) -> Prospect:
    """What limits the job that was `seen`."""
    ranks, alone = seen.ranks, job.alone_seconds
    smallest = min(network.team_sizes(ranks, job.rule.num_teams))
    ideal = job.ideal_speed_up(smallest)
    now = alone / seen.step_seconds
    prospect = Prospect(
        forecast=seen,
        num_hosts=network.num_hosts(ranks),
        speed_up=now,
        ideal=ideal,
        cause=Cause.UNKNOWN,
        without=now,
    )
    if now >= FALLS_SHORT * ideal:
        return replace(
            prospect, cause=Cause.RANKS if ideal >= smallest * job.rule.num_teams else Cause.TRAINER
        )
    freed = {Cause.NETWORK: _trial(job, ranks, Network())}
    freed |= {
        cause: _trial(without(job, ranks), ranks, network) for cause, without in _FREED.items()
    }
    gains = {cause: alone / forecast.step_seconds for cause, forecast in freed.items()}
    # Older parameters make up for a slow network too: the first that accounts for most is named.
    most = max(gains.values()) - now  # or less than nothing: trials are short
    cause = next(each for each in gains if gains[each] - now >= min(most, MOST * most))
    if gains[cause] - now < MATTERS * ideal:
        return prospect
    needed = _link_bytes(job, network, ranks) / CARRIED_SHARE / freed[cause].step_seconds
    return replace(prospect, cause=cause, without=gains[cause], needed_bytes_per_second=needed)


def remedies_of(
    job: Job, network: Network, seen: Prospect, choices: Sequence[Choice] = ()
) -> list[Remedy]:
    """Settings that help, each on top of those before it, until the job falls short no more."""
    found: list[Remedy] = []
    settings: dict[str, int | str] = {}
    reached, ranks = seen.speed_up, seen.ranks
    while len(found) < MOST_REMEDIES and reached < FALLS_SHORT * seen.ideal:
        # First what leaves parameters as fresh as they are.
        changes = [*_as_fresh(job), *([] if found else choices), *_older(job, ranks)]
        tried = [
            (each.job.alone_seconds / _trial(each.job, ranks, network).step_seconds, each)
            for each in changes
        ]
        best = max((speed_up for speed_up, _ in tried), default=0.0)
        if best - reached < MATTERS * seen.ideal:
            break
        # Among those that do nearly as well the one that asks for least: they stand in this order.
        enough = max(min(best - MATTERS * seen.ideal, FALLS_SHORT * seen.ideal), reached)
        reached, choice = next(each for each in tried if each[0] >= enough)
        settings, job = {**settings, **choice.settings}, choice.job
        found.append(Remedy(settings=settings, speed_up=reached))
    return found


def _trial(job: Job, ranks: int, network: Network) -> Forecast:
    return simulate(job, ranks, network, num_steps=TRIAL_STEPS)


def _link_bytes(job: Job, network: Network, ranks: int) -> float:
    """What a training step sends in the busier direction of the trainer's link."""
    crossing = network.exchanged_bytes(job.sum_bytes, ranks, job.rule.num_teams)
    ranks = max(network.team_sizes(ranks, job.rule.num_teams))
    remote = sum(map(network.is_remote, range(1, ranks)))
    sendings = network.num_sendings(network.num_hosts(ranks))
    sent = sendings * job.version_bytes / job.rule.publish_every
    received = job.rule.team_tickets * job.batch_bytes
    return crossing + max(sent, received * remote / max(1, ranks - 1))


def _as_fresh(job: Job) -> Iterator[Choice]:
    """More tickets per attacker; other steps at which versions are published."""
    rule = job.rule
    final, every = rule.final_staleness, rule.publish_every
    for number in range(job.credit + 1, min(rule.window, 2 * job.credit + 2) + 1):
        changed = replace(job, outstanding=number)
        yield Choice(settings={"staleness.outstanding": number}, job=changed)
    for number in sorted({every // 2, 1} - {0, every}, reverse=True):
        yield _with(job, publish_every=number)
    if final + 1 > every:
        yield _with(job, publish_every=final + 1)


def _older(job: Job, ranks: int) -> Iterator[Choice]:
    """A larger bound for the first attack step, for the last, for both; and rarer versions."""
    rule = job.rule
    largest, final, every = rule.max_staleness, rule.final_staleness, rule.publish_every
    attackers = ceil((ranks / rule.num_teams - 1) / rule.team_tickets)
    oldest = max(OLDEST, largest, 2 * attackers)
    tried = (2 * attackers, 4 * attackers, 2 * largest, oldest)
    wider = [number for number in tried if number > largest]
    for number in sorted({min(number, oldest) for number in wider}):
        yield _with(job, max_staleness=number)
    for number in sorted({1, 2, 2 * final, 4 * final, largest}):
        if final < number <= largest:
            yield _with(job, final_staleness=number)
    for number in sorted({min(number, oldest) for number in wider}):
        if number // 2 > final:
            yield _with(job, max_staleness=number, final_staleness=number // 2)
    for number in sorted({2 * every, 4 * every, largest + 1}):
        if final + 1 < number <= largest + 1:
            yield _with(job, final_staleness=number - 1, publish_every=number)


def _with(job: Job, **changes: int) -> Choice:
    """The job with another rule, and the settings that say so."""
    settings = {f"staleness.{key}": value for key, value in changes.items()}
    return Choice(settings=settings, job=replace(job, rule=replace(job.rule, **changes)))


def _with_room(job: Job, ranks: int) -> Job:
    """With a window that is no limit; constant staleness stays constant."""
    rule = job.rule
    largest = rule.max_staleness + 4 * ranks
    final = largest if rule.final_staleness == rule.max_staleness else rule.final_staleness
    outstanding = max(job.credit, 4)
    wide = replace(rule, max_staleness=largest, final_staleness=final)
    return replace(job, rule=wide, outstanding=outstanding)


def _with_old_parameters(job: Job, ranks: int) -> Job:
    """With attacks that need no fresher parameters at their end than at their start."""
    rule = replace(job.rule, final_staleness=job.rule.max_staleness)
    return replace(job, rule=rule, mode=StalenessMode.FIXED)


_FREED: Mapping[Cause, Callable[[Job, int], Job]] = {
    Cause.WINDOW: _with_room,
    Cause.FRESHNESS: _with_old_parameters,
    Cause.STALENESS: lambda job, ranks: _with_room(_with_old_parameters(job, ranks), ranks),
}
