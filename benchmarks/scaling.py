"""Speed-up over one rank, measured: `python benchmarks/scaling.py`. README.md shows results.

Starts `mpirun` for every number of ranks and prints tables. Owns the options and the tables; the
ranks themselves are `mpiadv.emulation.rank`, or with `--real` the program as users run it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mpirun import mpirun
from real import PRECISIONS, ticket_seconds

from mpiadv.comm.messages import WIRE_ARRAYS
from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.emulation.measurements import MEASUREMENTS, scenario_text
from mpiadv.emulation.scenario import Scenario
from mpiadv.process.errors import UserError

TCP = ("--mca", "pml", "ob1", "--mca", "btl", "self,tcp")
STALENESS = {"constant 16": (16, 16, 4), "16 to 4": (16, 4, 4)}
"""Name to max_staleness, final_staleness, publish_every."""

Runs = Mapping[int, Sequence[Any]]
"""Number of ranks to its measurements, one row each."""
Columns = Mapping[str, Callable[[int, Sequence[Any]], str]]
"""Heading to what stands below it, from the number of ranks and its runs."""


def main() -> int:
    """Measure what the command line asks for and print it."""
    options = _parser().parse_args()
    measure = _measure_real if options.real else _measure_emulated
    try:
        measure(options)
    except (UserError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the speed-up over one rank.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--real", action="store_true", help="real work on this machine's cores: 1 and 2 ranks")
    add("--repeats", type=int, default=3, help="runs of each row")
    add("--steps", type=int, default=300, help="measured tickets; fewer below 4 ranks")
    add("--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 9], help="emulated ranks")
    add("--staleness", choices=STALENESS, help="measure this one alone")
    add("--trainers", type=int, default=1, help="ranks that train, each with a team")
    add("--tickets-per-step", type=int, default=1, help="batches of a training step")
    add("--wire-dtype", choices=WIRE_ARRAYS, default="float32", help="type of all that is sent")
    add("--tcp", action="store_true", help="everything as messages over TCP, versions too")
    add("--train-ms", type=float, default=20.0, help="emulated training step")
    add("--craft-ms", type=float, default=148.0, help="emulated crafting of a batch")
    add("--slowness", type=_factors, default="1", help="1,1,4: every third takes 4 times as long")
    add("--attack-steps", type=int, default=8, help="emulated attack steps of a batch")
    add("--parameters", type=int, default=3_300_000, help="values of a version")
    add("--batch-size", type=int, default=128, help="images of a batch")
    add("--image-values", type=int, default=784, help="values of an image")
    add("--outstanding", type=int, help="tickets granted to an attacker at once, else by its speed")
    add("--poll-ms", type=float, default=0.5, help="pause between polls while a device is busy")
    return parser


def _factors(given: str) -> tuple[float, ...]:
    return tuple(float(factor) for factor in given.split(","))


def _measure_emulated(options: argparse.Namespace) -> None:
    scenario = _scenario(options)
    print(_told(scenario, options))
    chosen = [options.staleness] if options.staleness else list(STALENESS)
    for name in chosen:
        first, final, every = STALENESS[name]
        stale = replace(scenario, max_staleness=first, final_staleness=final, publish_every=every)
        print(f"\nstaleness {name}, publish_every {every}")
        runs = _run_all(stale, options)
        _print_table(runs, _speed_columns(runs, stale))
        _print_table(runs, SHARE_COLUMNS)
    if not options.staleness:
        _measure_light(scenario, options)


def _measure_light(scenario: Scenario, options: argparse.Namespace) -> None:
    light = replace(
        scenario, num_parameters=16, image_values=1, measured_steps=min(100, options.steps)
    )
    print("\nstaleness 16 to 4, publish_every 4, messages without content")
    runs = _run_all(light, options)
    _print_table(runs, _speed_columns(runs, light))
    _print_table(runs, WORK_COLUMNS)


def _told(scenario: Scenario, options: argparse.Namespace) -> str:
    return (
        f"emulated: {options.train_ms:g} ms to train on a batch, {options.craft_ms:g} ms to craft "
        f"one, times {', '.join(f'{factor:g}' for factor in options.slowness)} on attackers in "
        f"turn, on {len(os.sched_getaffinity(0))} cores; "
        f"messages in {options.wire_dtype} over {'TCP' if options.tcp else 'shared memory'}; "
        f"{options.repeats} runs of each row{_teams(scenario)}"
    )


def _teams(scenario: Scenario) -> str:
    if scenario.tickets_per_step == 1:
        return ""
    of = f"{scenario.trainers} trainers (one where there are fewer ranks)"
    return f"; {scenario.tickets_per_step} tickets a step, {of}"


def _scenario(options: argparse.Namespace) -> Scenario:
    return Scenario(
        train_seconds=options.train_ms / 1000,
        craft_seconds=options.craft_ms / 1000,
        num_attack_steps=options.attack_steps,
        num_parameters=options.parameters,
        batch_size=options.batch_size,
        image_values=options.image_values,
        max_staleness=16,
        final_staleness=4,
        publish_every=4,
        outstanding=options.outstanding,
        warmup_steps=20,
        measured_steps=options.steps,
        poll_seconds=options.poll_ms / 1000,
        wire_dtype=options.wire_dtype,
        slowness=options.slowness,
        tickets_per_step=options.tickets_per_step,
        trainers=options.trainers,
    )


def _run_all(scenario: Scenario, options: argparse.Namespace) -> Runs:
    """All runs of a table; the repeats take turns, so that passing noise meets every row."""
    runs: dict[int, list[Any]] = {ranks: [] for ranks in options.ranks}
    for _ in range(options.repeats):
        for ranks, done in runs.items():
            done.append(_run(scenario.sized_for(ranks), ranks, tcp=options.tcp))
    return runs


def _run(scenario: Scenario, ranks: int, *, tcp: bool) -> Any:
    scenario = _with_trainers(scenario, ranks)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "measured.h5")
        program = [sys.executable, "-m", "mpiadv.emulation.rank", scenario_text(scenario)]
        env = {DISABLE_SHARING: "1"} if tcp else {}
        options = TCP if tcp else ()
        mpirun([*program, str(output), "0"], ranks=ranks, options=options, env=env)
        return MEASUREMENTS.read(output)[0]


def _with_trainers(scenario: Scenario, ranks: int) -> Scenario:
    """The same with one trainer, the one that others are compared with, where ranks are fewer."""
    return replace(scenario, trainers=scenario.trainers if scenario.trainers <= ranks else 1)


def _speed_columns(runs: Runs, scenario: Scenario) -> Columns:
    """Speed-up over the fewest ranks there are, usually one."""
    fewest = min(runs)
    usual = _with_trainers(scenario, fewest).ideal(fewest)
    alone = usual * median(run["ticket_seconds"] for run in runs[fewest])

    def ideal(ranks: int) -> float:
        return _with_trainers(scenario, ranks).ideal(ranks)

    def speed_ups(measured: Sequence[Any]) -> list[float]:
        return [alone / run["ticket_seconds"] for run in measured]

    return {
        "ranks": lambda ranks, _: str(ranks),
        "speed-up (min-max)": lambda _, measured: _spread(speed_ups(measured), "4.2f"),
        "ideal": lambda ranks, _: f"{ideal(ranks):.2f}",
        "of ideal, %": lambda ranks, measured: (
            f"{100 * median(speed_ups(measured)) / ideal(ranks):.1f}"
        ),
        "trainer idle, %": _percent("idle"),
        "first staleness, mean (worst)": lambda _, m: _staleness("first", m),
        "last": lambda _, m: _staleness("last", m),
    }


def _percent(name: str) -> Callable[[int, Sequence[Any]], str]:
    return lambda _, measured: _spread([100 * run[name] for run in measured], ".1f")


def _microseconds(name: str) -> Callable[[int, Sequence[Any]], str]:
    return lambda _, measured: _spread([1e6 * run[name] for run in measured], ".0f")


SHARE_COLUMNS: Columns = {
    "ranks": lambda ranks, _: str(ranks),
    "attackers wait for parameters, %": _percent("parameter_wait"),
    "for the trainer, %": _percent("trainer_wait"),
    "for tickets, %": _percent("grant_wait"),
    "trainer late, %": _percent("late"),
    "copies, us per ticket": _microseconds("copy_seconds"),
    "cores busy with the ranks, %": _percent("cores"),
    "others, %": _percent("others"),
}

WORK_COLUMNS: Columns = {
    "ranks": lambda ranks, _: str(ranks),
    "trainer's own work, us of CPU per ticket": _microseconds("own_seconds"),
    "polling beside the device, us": _microseconds("poll_seconds"),
}


def _measure_real(options: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    tickets = options.tickets_per_step
    told = f"; {tickets} batches a step, each rank trains" * (tickets > 1)
    print(
        "real work: MNIST model and image sizes, 8 attack steps, batches of 128, "
        f"{cores} cores{told}"
    )
    for precision in PRECISIONS:
        seconds = {1: [], 2: []}  # type: dict[int, list[float]]
        for _ in range(options.repeats):
            for ranks, done in seconds.items():
                trainers = ranks if tickets > 1 else 1
                done.append(
                    ticket_seconds(ranks, precision, trainers=trainers, tickets_per_step=tickets)
                )
        speed_ups = [median(seconds[1]) / one for one in seconds[2]]
        rates = ", ".join(
            f"{ranks} rank{'s' if ranks > 1 else ''} {_spread(done, '.3f')} s per ticket"
            for ranks, done in seconds.items()
        )
        print(f"{precision}: {rates}: speed-up {_spread(speed_ups, '.2f')}")


def _print_table(runs: Runs, columns: Columns) -> None:
    rows = [
        [cell(ranks, measured) for cell in columns.values()] for ranks, measured in runs.items()
    ]
    lines = [list(columns), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def _spread(values: Sequence[float], form: str) -> str:
    """The median, and between which values all lie where there are several."""
    middle = format(median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def _staleness(end: str, measured: Sequence[Any]) -> str:
    mean = fmean(run[f"{end}_staleness"] for run in measured)
    return f"{mean:.1f} ({max(run[f'{end}_staleness_worst'] for run in measured)})"


if __name__ == "__main__":
    sys.exit(main())
