"""Speed-up between hosts with a slow network: `python benchmarks/network.py`. Needs root.

Makes hosts on this machine (`hosts.py`), runs emulated accelerators on their ranks, and prints how
fast they are beside how fast they could be, and how much of the network that takes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from hosts import Host, NoHostsError, agent_environment, hosts, mpirun_options, sent_bytes
from memory import watched
from mpirun import mpirun

from mpiadv.comm.messages import WIRE_ARRAYS
from mpiadv.emulation.measurements import MEASUREMENTS, scenario_text
from mpiadv.emulation.scenario import Scenario
from mpiadv.forecast.job import Forecast, Job, Network
from mpiadv.forecast.teams import simulate
from mpiadv.process.errors import UserError

LONG_JOB = 2000
"""Training steps of which the forecast looks at some: begun and ended versions do not count."""

Run = tuple[Any, Sequence[int], float]
"""What was measured, the bytes that each host's ranks held, and those that left the first host."""


def main() -> int:
    """Measure what the command line asks for and print it."""
    options = _dilated(_parser().parse_args())
    try:
        _measure(options)
    except (NoHostsError, UserError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"network.py: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the speed-up over one rank between hosts on a slow network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--hosts", type=int, default=2, help="emulated hosts")
    add("--ranks", type=int, default=8, help="ranks in all, shared evenly among the hosts")
    add("--delay-ms", type=float, default=10.0, help="one way, between any two hosts")
    add("--mbits", type=float, default=1000.0, help="Mbit/s of each host, in each direction")
    add("--trainers", type=int, default=1, help="ranks that train, each on hosts of its own")
    add("--tickets-per-step", type=int, default=1, help="batches of a training step")
    add("--parameters", type=int, nargs="+", default=[50_000, 3_300_000], help="of a version")
    add("--wire-dtype", choices=WIRE_ARRAYS, nargs="+", default=["float32", "float16"])
    add("--staleness", default="40,40,8", help="max_staleness,final_staleness,publish_every")
    add("--outstanding", type=int, default=4, help="tickets granted to an attacker at once")
    add("--train-ms", type=float, default=4.0, help="emulated training step")
    add("--craft-ms", type=float, default=30.0, help="emulated crafting of a batch")
    add("--attack-steps", type=int, default=8, help="emulated attack steps of a batch")
    add("--batch-size", type=int, default=128, help="images of a batch")
    add("--image-values", type=int, default=784, help="values of an image")
    add("--steps", type=int, default=1000, help="measured training steps")
    add("--warmup", type=int, default=100, help="training steps before those")
    add("--repeats", type=int, default=3, help="runs of each row")
    add("--poll-ms", type=float, default=1.0, help="pause between polls while a device is busy")
    add("--dilate", type=float, default=1.0, help="times, latency and bandwidth that much slower")
    add("--mca", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="Open MPI's")
    return parser


def _dilated(options: argparse.Namespace) -> argparse.Namespace:
    """The same job and network in slow motion: its speed-up is that of ranks with more cores.

    Dilated four times, eight ranks on two cores have the time that each would have on its own core.
    mpiadv's own pauses, of a millisecond at most, stay as they are.
    """
    for name in ("delay_ms", "train_ms", "craft_ms", "poll_ms"):
        setattr(options, name, options.dilate * getattr(options, name))
    options.mbits /= options.dilate
    return options


def _measure(options: argparse.Namespace) -> None:
    print(
        f"{options.ranks} ranks on {options.hosts} hosts, {options.delay_ms:g} ms one way, "
        f"{options.mbits:g} Mbit/s; emulated: {options.train_ms:g} ms to train on a batch, "
        f"{options.craft_ms:g} ms to craft one; staleness {options.staleness}, on "
        f"{len(os.sched_getaffinity(0))} cores; dilated {options.dilate:g} times; "
        f"{options.repeats} runs of each row\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{' ---: |' * len(COLUMNS)}", flush=True)
    for parameters in options.parameters:
        for wire_dtype in options.wire_dtype:
            scenario = replace(_scenario(options), num_parameters=parameters, wire_dtype=wire_dtype)
            runs = [_between_hosts(scenario, options) for _ in range(options.repeats)]
            print(f"| {' | '.join(_row(scenario, runs, options))} |", flush=True)


COLUMNS = (
    "values of a version", "in", "speed-up (min-max)", "ideal", "of ideal, %", "forecast",
    "link allows", "sent, Mbit/s", "received, Mbit/s", "trainer idle, %", "late, %",
    "attackers wait for parameters, %", "for tickets, %", "cores busy with the ranks, %",
    "others, %", "staleness, first and last", "MB held by the trainer's host, by each other",
    "left the first host per step, MB (as computed)",
)  # fmt: skip
SHARES = ("idle", "late", "parameter_wait", "grant_wait", "cores", "others")


def _row(scenario: Scenario, measured: Sequence[Run], options: argparse.Namespace) -> list[str]:
    """Speed-up is over one rank whose device never waits; `forecast` is that of `mpiadv plan`."""
    memory = [held for _, held, _ in measured]
    runs = [run for run, _, _ in measured]
    alone = scenario.craft_seconds + scenario.train_seconds
    seconds = median(run["ticket_seconds"] for run in runs)
    speed_ups = [alone / run["ticket_seconds"] for run in runs]
    ideal = scenario.ideal(options.ranks)
    per_ticket = 1 / (1e6 * scenario.tickets_per_step)
    sent, received = (bits * per_ticket for bits in _bits_per_step(scenario, options))
    crossed = median(each for _, _, each in measured) / 1e6
    shares = (f"{100 * median(run[name] for run in runs):.1f}" for name in SHARES)
    return [
        f"{scenario.num_parameters:,}",
        scenario.wire_dtype,
        f"{alone / seconds:.2f} ({min(speed_ups):.2f}-{max(speed_ups):.2f})",
        f"{ideal:.2f}",
        f"{100 * alone / seconds / ideal:.0f}",
        f"{alone * scenario.tickets_per_step / _forecast(scenario, options).step_seconds:.2f}",
        f"{alone * options.mbits / max(sent, received):.2f}",
        f"{sent / seconds:.0f}",
        f"{received / seconds:.0f}",
        *shares,
        " and ".join(f"{median(run[name] for run in runs):.1f}" for name in STALENESS),
        ", ".join(f"{median(held) / 1e6:.0f}" for held in zip(*memory, strict=True)),
        f"{crossed:.2f} ({sent * scenario.tickets_per_step / 8:.2f})",
    ]


SUMMED_BYTES = 4
"""Of a value, whatever the type of versions."""

STALENESS = ("first_staleness", "last_staleness")


def _forecast(scenario: Scenario, options: argparse.Namespace) -> Forecast:
    job = Job(
        rule=scenario.rule,
        num_attack_steps=scenario.num_attack_steps,
        craft_seconds=scenario.craft_seconds,
        train_seconds=scenario.train_seconds,
        num_steps=LONG_JOB,
        outstanding=scenario.outstanding,
        version_bytes=_version_bytes(scenario),
        batch_bytes=_batch_bytes(scenario),
        sum_bytes=SUMMED_BYTES * scenario.num_parameters if scenario.trainers > 1 else 0,
    )
    network = Network(
        ranks_per_host=options.ranks // options.hosts,
        bytes_per_second=options.mbits * 1e6 / 8,
        latency_seconds=options.delay_ms / 1000,
    )
    return simulate(job, options.ranks, network)


def _bits_per_step(scenario: Scenario, options: argparse.Namespace) -> tuple[float, float]:
    """What leaves the first trainer's host and what comes to it, per training step."""
    hosts, ranks = options.hosts // scenario.trainers, options.ranks // scenario.trainers
    sendings = Network.num_sendings(hosts)
    sent = sendings * _version_bytes(scenario) / scenario.publish_every
    received = (ranks - ranks // hosts) * _batch_bytes(scenario) / max(1, ranks - 1)
    summed = 2 * SUMMED_BYTES * scenario.num_parameters * (1 - 1 / scenario.trainers)
    return 8 * (sent + summed), 8 * (received * scenario.rule.team_tickets + summed)


def _version_bytes(scenario: Scenario) -> int:
    return scenario.num_parameters * scenario.value_bytes


def _batch_bytes(scenario: Scenario) -> int:
    return scenario.batch_size * (scenario.image_values * scenario.value_bytes + 8)


def _scenario(options: argparse.Namespace) -> Scenario:
    first, final, every = map(int, options.staleness.split(","))
    return Scenario(
        train_seconds=options.train_ms / 1000,
        craft_seconds=options.craft_ms / 1000,
        num_attack_steps=options.attack_steps,
        num_parameters=options.parameters[0],
        batch_size=options.batch_size,
        image_values=options.image_values,
        max_staleness=first,
        final_staleness=final,
        publish_every=every,
        outstanding=options.outstanding,
        warmup_steps=options.warmup,
        measured_steps=options.steps,
        poll_seconds=options.poll_ms / 1000,
        tickets_per_step=options.tickets_per_step,
        trainers=options.trainers,
    )


def _between_hosts(scenario: Scenario, options: argparse.Namespace) -> Run:
    delay, rate = options.delay_ms / 1000, options.mbits * 1e6
    with hosts(options.hosts, delay_seconds=delay, bits_per_second=rate) as made:
        with watched(made) as held:
            run = _run(scenario, options.ranks, made, options.mca)
        steps = scenario.warmup_steps + scenario.measured_steps
        return run, held, sent_bytes(made[0]) / steps


def _run(scenario: Scenario, ranks: int, made: Sequence[Host], mca: Sequence[Sequence[str]]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "measured.h5")
        program = [sys.executable, "-m", "mpiadv.emulation.rank", scenario_text(scenario)]
        mpirun(
            [*program, str(output), "0"],
            ranks=ranks,
            options=[
                *mpirun_options(made, ranks // len(made)),
                *(word for pair in mca for word in ("--mca", *pair)),
            ],
            prefix=made[0].inside([]),
            env=agent_environment(made),
        )
        return MEASUREMENTS.read(output)[0]


if __name__ == "__main__":
    sys.exit(main())
