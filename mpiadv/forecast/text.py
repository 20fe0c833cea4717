"""What a forecast says to people, line by line, and to programs, as plain values. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpiadv.contract.tickets import StalenessRule
from mpiadv.forecast.job import Job, Network
from mpiadv.forecast.limits import Cause, Prospect, worth_a_warning
from mpiadv.forecast.memory import JobMemory, Memory
from mpiadv.process.words import aligned, counted, duration

FORMAT = 2
"""Of the values that `values_of` gives."""

MEBIBYTE = 2.0**20
GIGABIT = 1e9 / 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job, what it was measured on, and what to expect of it.

    `evaluation_seconds` are those of the evaluations during the run, which the trainer makes alone;
    `final_seconds` those of the last one on one rank, which all ranks share.
    """

    what: str
    measured_on: str
    job: Job
    network: Network
    prospects: Sequence[Prospect]
    evaluation_seconds: float
    final_seconds: float
    memory: JobMemory
    """On the largest number of ranks."""
    notes: Sequence[str]
    """Further warnings."""

    def seconds_to_finish(self, prospect: Prospect) -> float:
        """Training and evaluations."""
        final = self.final_seconds / prospect.ranks
        return prospect.forecast.training_seconds + self.evaluation_seconds + final


def lines_of(plan: Plan) -> list[str]:
    """The whole plan for a terminal."""
    return [
        f"mpiadv plan: {plan.what}",
        *_work(plan),
        f"assumed: every rank has a device of its own, that fast; {_hosts(plan.network)}",
        "",
        *_table(plan),
        "",
        *_staleness(plan),
        *_memory(plan.memory),
        *(f"warning: {line}" for line in (*plan.notes, *warnings_of(plan))),
    ]


def warnings_of(plan: Plan) -> list[str]:
    """What keeps the job from its ideal speed, by how much, and what helps."""
    wanted = worth_a_warning(plan.prospects)
    lines = [f"{_shortfall(each)}: {_cause(each, plan)}; {_helps(each)}" for each in wanted]
    if any(_makes_older(each) for each in wanted):
        lines.append(
            "older parameters change what is trained, most where learning rates are large: see "
            "Staleness in the README"
        )
    return lines


def values_of(plan: Plan) -> dict[str, Any]:
    """The plan as numbers, strings, lists and dicts."""
    job = plan.job
    return {
        "format": FORMAT,
        "job": plan.what,
        "measured_on": plan.measured_on,
        "craft_seconds": job.craft_seconds,
        "train_seconds": job.train_seconds,
        "feeding_attackers": job.feeding_attackers,
        "version_bytes": job.version_bytes,
        "batch_bytes": job.batch_bytes,
        "memory": plan.memory.values(),
        "ranks": [_values(plan, prospect) for prospect in plan.prospects],
        "warnings": [*plan.notes, *warnings_of(plan)],
    }


def _values(plan: Plan, prospect: Prospect) -> dict[str, Any]:
    values = asdict(prospect)
    finished = plan.seconds_to_finish(prospect)
    return {**values.pop("forecast"), **values, "seconds_to_finish": finished}


def _work(plan: Plan) -> list[str]:
    job = plan.job
    num, attackers = job.feeding_attackers, counted(job.feeding_attackers, "attacker")
    trainers = job.rule.num_teams
    whom = "the trainer" if trainers == 1 else f"each of {trainers} trainers"
    return [
        f"{plan.measured_on}: {_milliseconds(job.craft_seconds)} to craft a batch, "
        f"{_milliseconds(job.train_seconds)} to train on one",
        f"{attackers} feed{'s' if num == 1 else ''} {whom}: more than {trainers * (num + 1)} ranks "
        "are no faster",
    ]


def _hosts(network: Network) -> str:
    if network.ranks_per_host is None:
        return "all ranks on one host"
    per_host = counted(network.ranks_per_host, "rank")
    return f"{per_host} per host; {_speed_of(network)} between hosts"


def _speed_of(network: Network) -> str:
    gigabits, milliseconds = network.bytes_per_second / GIGABIT, 1000 * network.latency_seconds
    return f"{gigabits:g} Gbit/s and {milliseconds:g} ms one way"


_COLUMNS: Mapping[str, Callable[[Plan, Prospect], str]] = {
    "ranks": lambda _, each: str(each.ranks),
    "hosts": lambda _, each: str(each.num_hosts),
    "speed-up": lambda _, each: f"{each.speed_up:.2f}",
    "of ideal": lambda _, each: f"{100 * each.speed_up / each.ideal:.0f} %",
    "steps/s": lambda _, each: f"{1 / each.forecast.step_seconds:.3g}",
    "training": lambda _, each: duration(each.forecast.training_seconds),
    "to finish": lambda plan, each: duration(plan.seconds_to_finish(each)),
    "trainer waits": lambda _, each: f"{100 * each.forecast.trainer_idle:.0f} %",
    "MB/s out": lambda _, each: _megabytes(each.sent_bytes_per_second),
    "MB/s in": lambda _, each: _megabytes(each.received_bytes_per_second),
    "limit": lambda _, each: each.cause.value,
}
"""Heading to cell. `to finish` includes evaluations; the wire is that of the trainer's host."""


def _table(plan: Plan) -> list[str]:
    rows = [[tell(plan, each) for tell in _COLUMNS.values()] for each in plan.prospects]
    return aligned([list(_COLUMNS), *rows])


def _staleness(plan: Plan) -> list[str]:
    job, rule, forecast = plan.job, plan.job.rule, plan.prospects[-1].forecast
    last = f"{rule.final_staleness}, {forecast.last_staleness:.1f} on average"
    if job.crafting_steps == 0:
        told = "none, as no attack step is crafted on published parameters"
    elif job.crafting_steps == 1:
        told = f"at the only attack step that is crafted at most {last}"
    else:
        told = (
            f"at the first attack step at most {rule.max_staleness}, "
            f"{forecast.first_staleness:.1f} on average; at the last at most {last}"
        )
    own = job.num_attack_steps - job.crafting_steps
    more = "more " * (job.crafting_steps > 0)
    return [f"staleness: {told}" + f"; {counted(own, f'{more}step')} by the trainer" * (own > 0)]


_PARTS = {
    "trainer": "trainer",
    "leader": "each leader of another host",
    "attacker": "every other rank",
}


def _memory(memory: JobMemory) -> list[str]:
    parts = [f"{_PARTS[part]} {_bytes_of(each)}" for part, each in memory.by_part.items()]
    lines = [f"memory on {counted(memory.num_ranks, 'rank')}: {'; '.join(parts)}"]
    if memory.num_ranks > 1:
        lines.append(f"memory of a host, with each version once: {_of_hosts(memory)}")
    return lines


def _bytes_of(memory: Memory) -> str:
    messages = {"versions": memory.versions, "batches": memory.batches}
    told = ", ".join(f"{what} {_mebibytes(each, 1)}" for what, each in messages.items() if each)
    device = f", {_mebibytes(memory.device)} on the GPU" if memory.device else ""
    return f"{_mebibytes(memory.in_host)} ({told}){device}"


def _of_hosts(memory: JobMemory) -> str:
    """The trainer's, and the fullest of the others."""
    whose = ["the trainer's" if memory.num_trainers == 1 else "the first", "another"]
    each = zip(whose, memory.host_sizes, memory.of_hosts, strict=False)
    return "; ".join(
        f"{name} {_mebibytes(num_bytes)} ({counted(size, 'rank')})"
        for name, size, num_bytes in each
    )


def _mebibytes(num_bytes: int, digits: int = 0) -> str:
    return f"{num_bytes / MEBIBYTE:.{digits}f} MiB"


def _shortfall(prospect: Prospect) -> str:
    slower = ", slower than one rank" if prospect.speed_up < 1 else ""
    return (
        f"{counted(prospect.ranks, 'rank')}: speed-up {prospect.speed_up:.2f}{slower}, "
        f"{100 * prospect.speed_up / prospect.ideal:.0f} % of the ideal {prospect.ideal:.2f}"
    )


def _cause(prospect: Prospect, plan: Plan) -> str:
    rule, network = plan.job.rule, plan.network
    attackers = prospect.ranks // rule.num_teams - 1
    window = f"{counted(rule.window, 'ticket')} ({_window(rule)})"
    fresh = (
        f"waiting for fresh parameters (final_staleness={rule.final_staleness}, "
        f"publish_every={rule.publish_every})"
    )
    causes = {
        Cause.NETWORK: f"the network is the limit ({_speed_of(network)}), it would have to carry "
        f"{_figure(prospect.needed_bytes_per_second / GIGABIT)} Gbit/s",
        Cause.WINDOW: f"the window is the limit, {window} in all and {plan.job.credit} per "
        f"attacker (outstanding) for {counted(attackers, 'attacker')}",
        Cause.FRESHNESS: f"{fresh} is the limit",
        Cause.STALENESS: f"the window of {window} and {fresh} are the limit together",
        Cause.UNKNOWN: "nothing alone is the limit",
    }
    without = f"; without it {prospect.without:.2f}"
    return causes[prospect.cause] + without * (prospect.cause is not Cause.UNKNOWN)


def _window(rule: StalenessRule) -> str:
    per_step = rule.team_tickets
    return "max_staleness + 1" if per_step == 1 else f"{per_step} * (max_staleness + 1)"


def _helps(prospect: Prospect) -> str:
    ways = [f"{_words(each.settings)} gives {each.speed_up:.2f}" for each in prospect.remedies]
    if prospect.cause is Cause.NETWORK:
        ways.append("more ranks on the trainer's host, or a faster network, help too")
    return "; ".join(ways) or "no one setting helps"


def _words(settings: Mapping[str, int | str]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _makes_older(prospect: Prospect) -> bool:
    older = {"staleness.max_staleness", "staleness.final_staleness"}
    return any(older & remedy.settings.keys() for remedy in prospect.remedies)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _megabytes(bytes_per_second: float) -> str:
    return _figure(bytes_per_second / 1e6) if bytes_per_second else "-"


def _figure(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
