"""From a configuration to its plan: what the job is, measured here, and where it is to run."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from mpiadv.comm.links import SPARE_BROADCASTS
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.teams import Layout, place_teams
from mpiadv.forecast.job import Job, Network
from mpiadv.forecast.limits import Choice, look_ahead, usual_ranks
from mpiadv.forecast.memory import JobMemory
from mpiadv.forecast.text import GIGABIT, Plan
from mpiadv.process.errors import UserError
from mpiadv.process.words import counted
from mpiadv.session.measurement import (
    FEWEST_BATCHES,
    LONGEST_SECONDS,
    MOST_BATCHES,
    Measured,
    measure,
)
from mpiadv.session.setup import Setup
from mpiadv.settings import Config

OVERHEAD_SECONDS = 0.0003
"""The trainer's own time per step, for messages, decisions and the log: see benchmarks."""

USUAL_GIGABITS, USUAL_MILLISECONDS = 10.0, 0.1
"""Of a network between hosts of which nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a job is to run, as far as the user says; None: what is usual."""

    ranks: Sequence[int] | None = None
    ranks_per_host: int | None = None
    gigabits_per_second: float | None = None
    latency_milliseconds: float | None = None
    craft_seconds: float | None = None
    train_seconds: float | None = None
    trainers: int = 1

    @property
    def is_elsewhere(self) -> bool:
        """Whether both times are given: those of a machine that is not this one."""
        return self.craft_seconds is not None and self.train_seconds is not None


def plan_run(setup: Setup, where: Where, tell: Callable[[str], None]) -> Plan:
    """Measure this rank and say what to expect of the job; `tell` hears that it takes a while.

    Raises:
        UserError: what is said of the network cannot matter, as all ranks are on one host.
    """
    network = _network(setup, where)
    tell("measuring batches, evaluations and memory on one rank ...")
    measured = measure(setup, most_batches=1 if where.is_elsewhere else MOST_BATCHES)
    job = _job(setup, measured, where)
    trainers = job.rule.num_teams
    ranks = _ranks(setup.config, where, job, network)
    during, final = _evaluation_seconds(setup, measured, job)
    return Plan(
        what=_described(setup.config, trainers),
        measured_on=_measured_on(setup, measured, where),
        job=job,
        network=network,
        prospects=look_ahead(job, network, ranks, _choices(setup, job)),
        evaluation_seconds=during,
        final_seconds=final,
        memory=_memory(setup, measured, job, network.host_sizes(ranks[-1])),
        notes=[
            *setup.doubts,
            *_few_batches(measured, where),
            *_growing(setup),
            *_other_layout(setup.config, trainers),
            *_on_this_machine(setup, where, network, ranks[-1]),
        ],
    )


def _ranks(config: Config, where: Where, job: Job, network: Network) -> list[int]:
    """Numbers of ranks to look at: those asked for, or usual ones that trainers can share out.

    Raises:
        UserError: they cannot share out what was asked for.
    """
    layout, trainers = Layout(config.training.team_layout), job.rule.num_teams

    def place(number: int) -> None:
        place_teams([str(network.host_of(rank)) for rank in range(number)], trainers, layout)

    for number in where.ranks or ():
        place(number)
    found = list(where.ranks or ())
    for number in () if where.ranks else usual_ranks(job):
        with suppress(UserError):
            place(number)
            found.append(number)
    if not found:
        place(trainers)
    return sorted(set(found or [trainers]))


def _job(setup: Setup, measured: Measured, where: Where) -> Job:
    staleness, trainers = setup.config.staleness, where.trainers
    rule = setup.recipe.rule.of_team(0, trainers)
    # Each trainer makes the whole update, for its own share of the batches.
    more = measured.update_seconds * (trainers - 1) / rule.tickets_per_step
    return Job(
        rule=rule,
        num_attack_steps=setup.largest_settings.num_steps,
        craft_seconds=where.craft_seconds or measured.craft_seconds,
        train_seconds=where.train_seconds or measured.train_seconds + more,
        num_steps=setup.config.training.num_steps,
        outstanding=staleness.credit,
        mode=StalenessMode(staleness.mode),
        trainer_crafts=staleness.trainer_crafts,
        version_bytes=measured.version_bytes,
        sum_bytes=measured.sum_bytes,
        batch_bytes=setup.link_shape(measured.version_bytes).batch.num_bytes,
        leaves_host_free=setup.device.is_cuda or where.is_elsewhere,
        step_overhead_seconds=OVERHEAD_SECONDS,
    )


def _choices(setup: Setup, job: Job) -> list[Choice]:
    """Half the bytes on the wire, where they are not halved already."""
    if setup.recipe.wire_dtype != "float32":
        return []
    shorter = replace(job, version_bytes=job.version_bytes // 2, batch_bytes=job.batch_bytes // 2)
    return [Choice(settings={"training.wire_dtype": "bfloat16"}, job=shorter)]


def _network(setup: Setup, where: Where) -> Network:
    """Ranks per host as said, or one for each GPU; else all on one host, whatever their number."""
    gigabits, latency = where.gigabits_per_second, where.latency_milliseconds
    per_host = where.ranks_per_host or (torch.cuda.device_count() if setup.device.is_cuda else None)
    if per_host is not None:
        return Network(
            ranks_per_host=per_host,
            bytes_per_second=(gigabits or USUAL_GIGABITS) * GIGABIT,
            latency_seconds=(USUAL_MILLISECONDS if latency is None else latency) / 1000,
        )
    for option, value in {"--bandwidth": gigabits, "--latency": latency}.items():
        if value is not None:
            raise UserError(
                f"{option} {value:g} is of the network between hosts, and without a GPU here all "
                "ranks are taken to be on one: give --ranks-per-host too"
            )
    return Network()


def _memory(setup: Setup, measured: Measured, job: Job, host_sizes: Sequence[int]) -> JobMemory:
    """Where all ranks keep up and are equally fast."""
    shape = setup.link_shape(job.version_bytes)
    versions = (shape.num_versions + SPARE_BROADCASTS) * shape.parameter_bytes
    trainers = job.rule.num_teams
    granted = min(job.rule.window, job.credit * (sum(host_sizes) // trainers - 1))
    attacker = replace(measured.attacker, batches=job.credit * shape.batch.num_bytes)
    return JobMemory(
        host_sizes=host_sizes,
        num_trainers=trainers,
        trainer=replace(
            measured.trainer, versions=versions, batches=granted * shape.batch.num_bytes
        ),
        leader=replace(attacker, versions=versions),
        attacker=attacker,
    )


def _evaluation_seconds(setup: Setup, measured: Measured, job: Job) -> tuple[float, float]:
    """Of the evaluations during the run, and of the last one on one rank."""
    config, guard, data = setup.config.evaluation, setup.config.guard, setup.data
    elsewhere = job.craft_seconds / measured.craft_seconds
    step_seconds = measured.evaluation_step_seconds * elsewhere
    times = (job.num_steps - 1) // config.every_steps if config.every_steps else 0
    looked_at = [source for source in (data.test, data.held_out) if source]
    every = sum(min(config.num_samples, source.num_samples) for source in looked_at)
    last = min(config.final_samples or data.test.num_samples, data.test.num_samples)
    held = min(config.num_samples, data.held_out.num_samples) if data.held_out else 0
    during = (times * every + held) * config.num_steps * len(setup.config.average.weights)
    if guard.every_steps:
        guarded = min(guard.num_samples, data.train.num_samples)
        during += job.num_steps // guard.every_steps * guarded * guard.num_steps
    at_end = last * config.num_steps * len(setup.config.weights)
    return during * step_seconds, at_end * step_seconds


def _described(config: Config, trainers: int) -> str:
    most = "" if config.attack_schedule.name == "constant" else "up to "
    size = config.training.tickets_per_step * config.data.batch_size
    return (
        f"{config.model.name} on {config.data.name}, {config.training.num_steps:,} steps of {size} "
        f"images, {config.attack.name} of {most}{config.attack.num_steps} "
        f"steps{f', {trainers} trainers' if trainers > 1 else ''}"
    )


def _measured_on(setup: Setup, measured: Measured, where: Where) -> str:
    if where.is_elsewhere:
        return "as given, for devices that leave their hosts free, as GPUs do"
    device = f"cpu, {counted(setup.threads, 'thread')}"
    if setup.device.is_cuda:
        device = torch.cuda.get_device_name(setup.device.torch)
    given = {"crafting": where.craft_seconds, "training": where.train_seconds}
    told = "".join(f", {name} as given" for name, seconds in given.items() if seconds)
    return f"measured on {device}, median of {counted(measured.num_batches, 'batch')}{told}"


def _few_batches(measured: Measured, where: Where) -> list[str]:
    """Where a measurement was too short to be sure of."""
    if where.is_elsewhere or measured.num_batches >= FEWEST_BATCHES:
        return []
    batches = counted(measured.num_batches, "batch")
    return [f"{batches} measured in {LONGEST_SECONDS:g} s: the times may be far off"]


def _other_layout(config: Config, trainers: int) -> list[str]:
    if trainers == 1 or config.training.team_layout == "hosts":
        return []
    return [
        "training.team_layout=first: the figures are for teams on hosts of their own; versions and "
        "batches cross the network here, too"
    ]


def _growing(setup: Setup) -> list[str]:
    """What a schedule of attacks makes of the figures."""
    config = setup.config.attack_schedule
    if config.name == "constant":
        return []
    most = setup.largest_settings.num_steps
    return [
        f"attack_schedule.name={config.name}: every attack is taken to have {most} steps, the most "
        "that it may have; training is faster while attacks have fewer"
    ]


def _on_this_machine(setup: Setup, where: Where, network: Network, ranks: int) -> list[str]:
    """What stands between the assumption, a device for every rank, and this machine."""
    if where.is_elsewhere:
        return []
    cores = len(os.sched_getaffinity(0))
    on_one = min(ranks, network.ranks_per_host or ranks)
    if setup.device.is_cuda or on_one * setup.threads <= cores:
        return []
    return [
        f"there is no GPU here: {on_one} ranks with training.threads={setup.threads} would share "
        f"the {cores} cores of a host like this one; the figures are for hosts with "
        f"{on_one * setup.threads} cores or more"
    ]
