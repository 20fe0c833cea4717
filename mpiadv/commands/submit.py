"""`mpiadv submit`: reads the command line, writes the batch script and hands it to Slurm."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpiadv.cluster.script import WARNING_SECONDS, Job, render
from mpiadv.cluster.slurm import SlurmError, submit_script
from mpiadv.command_lines import TRUST_HELP, TRUST_OPTION, CommandLine
from mpiadv.command_lines.numbers import whole
from mpiadv.process.errors import UserError
from mpiadv.settings import load_config
from mpiadv.storage.run_folder import CHECKPOINTS_NAME, RunState, state_of

_SHORTEST_WORK_SECONDS = 60
"""Slurm may warn this much too early."""


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv submit",
        description="Train in a job of the Slurm cluster, one rank for each GPU. The job goes on "
        "after time limits, preemption and dead nodes, from its last checkpoint, until the run is "
        "done.",
        epilog="Other options of sbatch: --sbatch=--mem=64G --sbatch=--constraint=a100",
    )
    described.add_argument(
        "words",
        nargs="*",
        metavar="CONFIG|KEY=VALUE",
        help="as after mpiadv: a YAML file, settings",
    )
    for option, settings in _OPTIONS.items():
        described.add_argument(option, **settings)
    return described


def _word(given: str) -> str:
    if not re.fullmatch(r"[^\s'\"#]+", given):
        raise argparse.ArgumentTypeError(f"{given!r} is no single word")
    return given


def _option(given: str) -> str:
    if not re.fullmatch(r"--?\w[^\n]*", given):
        raise argparse.ArgumentTypeError(f"{given!r}: expected an option of sbatch, as --mem=64G")
    return given


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--gpus": {
        "type": whole(0, 1024),
        "metavar": "N",
        "help": "GPUs of each node, with a rank for each; 0: on CPUs alone, with --ranks",
    },
    "--ranks": {
        "type": whole(1, 10**6),
        "metavar": "N",
        "help": "ranks on each node; as many as GPUs without it",
    },
    "--nodes": {
        "type": whole(1, 10**6),
        "metavar": "N",
        "default": 1,
        "help": "nodes; 1 without it",
    },
    "--cpus": {
        "type": whole(1, 10**6),
        "metavar": "N",
        "default": 4,
        "help": "cores for each rank; 4 without it",
    },
    "--time": {
        "type": _word,
        "default": "04:00:00",
        "help": "limit of each start, as 30 (minutes), 04:00:00 or 1-12 (days-hours); 4 hours "
        "without it",
    },
    "--partition": {"type": _word, "metavar": "NAME", "help": "the cluster's own without it"},
    "--account": {"type": _word, "metavar": "NAME", "help": "whose hours to use"},
    "--name": {"type": _word, "help": "of the job and its log; the output folder's without it"},
    "--sbatch": {
        "type": _option,
        "metavar": "OPTION",
        "action": "append",
        "default": [],
        "help": "another option of sbatch; may be repeated",
    },
    "--warning": {
        "type": whole(1, 10**6),
        "metavar": "SECONDS",
        "default": WARNING_SECONDS,
        "help": "how long before the limit the last checkpoint is asked for; "
        f"{WARNING_SECONDS} without it",
    },
    "--chain": {
        "action": "store_true",
        "help": "for clusters whose jobs may not requeue: each start submits the next one",
    },
    "--fault-tolerant": {
        "action": "store_true",
        "help": "go on without attackers that die or hang, instead of starting once more",
    },
    TRUST_OPTION: {"action": "store_true", "help": TRUST_HELP},
    "--dry-run": {"action": "store_true", "help": "print the batch script, and submit nothing"},
}


def main(argv: Sequence[str]) -> int:
    """Submit; returns the exit code.

    Raises:
        UserError: bad input, or Slurm refuses the job.
    """
    arguments = parser().parse_intermixed_args(argv)
    output = _output(arguments.words, trust_code=arguments.trust_code)
    job = _job(arguments, output)
    script = render(job, _environment())
    if arguments.dry_run:
        print(script, end="")
        return 0
    try:
        number = submit_script(script, environ=os.environ)
    except SlurmError as error:
        raise UserError(
            f"submit: {error}: run this where the cluster takes jobs, or see the script with "
            "--dry-run"
        ) from None
    print(_told(job, number, output))
    return 0


def _output(words: Sequence[str], *, trust_code: bool) -> Path:
    """The folder of the run that `words` configure, which must not be done."""
    settings = list(words)
    path = settings.pop(0) if settings and "=" not in settings[0] else None
    folder = Path(load_config(path, settings, trust_code=trust_code).output)
    if state_of(folder) is RunState.FINISHED:
        raise UserError(f"{folder} holds a finished run: choose another folder with output=FOLDER")
    return folder


def _job(arguments: argparse.Namespace, output: Path) -> Job:
    ranks = arguments.ranks or arguments.gpus
    if not ranks:
        raise UserError(
            "submit: expected --gpus N, the GPUs of each node, or on CPUs alone --ranks N"
        )
    _require_time(arguments.time, arguments.warning)
    named = {"--partition": arguments.partition, "--account": arguments.account}
    return Job(
        words=tuple(arguments.words),
        name=arguments.name or re.sub(r"[^\w.-]+", "-", output.resolve().name),
        nodes=arguments.nodes,
        ranks=ranks,
        gpus=arguments.gpus or 0,
        cpus=arguments.cpus,
        time=arguments.time,
        options=(*(f"{key}={value}" for key, value in named.items() if value), *arguments.sbatch),
        warning_seconds=arguments.warning,
        is_chain=arguments.chain,
        is_fault_tolerant=arguments.fault_tolerant,
        trust_code=arguments.trust_code,
    )


def _require_time(limit: str, warning_seconds: int) -> None:
    seconds = _seconds(limit)
    if seconds <= warning_seconds + _SHORTEST_WORK_SECONDS:
        raise UserError(
            f"submit: --time {limit} leaves no time to work before the warning, "
            f"{warning_seconds} s before its end: expected more than "
            f"{warning_seconds + _SHORTEST_WORK_SECONDS} s"
        )


def _seconds(limit: str) -> int:
    """The seconds of a time limit as Slurm writes it."""
    days, dash, clock = limit.rpartition("-")
    parts = clock.split(":")
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    if len(parts) > len(units) or not all(map(str.isdigit, [days or "0", *parts])):
        raise UserError(
            f"submit: --time {limit}: expected MINUTES, MM:SS, HH:MM:SS, DAYS-HH or DAYS-HH:MM:SS"
        )
    whole_days = 24 * 3600 * int(days or 0)
    return whole_days + sum(int(part) * unit for part, unit in zip(parts, units, strict=False))


def _environment() -> list[str]:
    """The shell that puts this mpiadv on PATH; Slurm passes the rest of the environment on."""
    return [f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"']


def _told(job: Job, number: str, output: Path) -> str:
    is_begun = any((output / CHECKPOINTS_NAME).glob("*.pt"))
    size = f"{_counted(job.nodes * job.ranks, 'rank')} on {_counted(job.nodes, 'node')}"
    end = f'--user="$USER" --name={job.name}' if job.is_chain else number
    return (
        f"job {number}: {size}, {'goes on with' if is_begun else 'trains'} {output}\n"
        f"its place in the queue: squeue --jobs={number}\n"
        f"the run as it goes on:  mpiadv watch {shlex.quote(str(output))}\n"
        f"what it says:           tail -F {job.log(number)}\n"
        f"to end it:              scancel {end}"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
