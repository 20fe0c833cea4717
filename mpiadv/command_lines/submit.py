"""The command line of jobs for Slurm."""

import argparse
import re
from collections.abc import Sequence

from mpiadv.command_lines.described import CONFIGURED, TRUSTED, Described, flag, repeated, value
from mpiadv.command_lines.numbers import whole
from mpiadv.process.errors import UserError

WARNING_SECONDS = 120
"""Seconds before the time limit at which a job is told to write a checkpoint and end."""

_SHORTEST_WORK_SECONDS = 60
"""Slurm may warn this much too early."""


def _word(given: str) -> str:
    if not re.fullmatch(r"[^\s'\"#]+", given):
        raise argparse.ArgumentTypeError(f"{given!r} is no single word")
    return given


def _option(given: str) -> str:
    if not re.fullmatch(r"--?\w[^\n]*", given):
        raise argparse.ArgumentTypeError(f"{given!r}: expected an option of sbatch, as --mem=64G")
    return given


SUBMIT = Described(
    name="submit",
    example="submit CONFIG ...",
    summary="train in a Slurm job, which goes on until the run is done",
    about="Train in a job of the Slurm cluster, one rank for each GPU. The job goes on after time "
    "limits, preemption and dead nodes, from its last checkpoint, until the run is done.",
    epilog="Other options of sbatch: --sbatch=--mem=64G --sbatch=--constraint=a100",
    words=CONFIGURED,
    options={
        "--gpus": value(
            "N", "GPUs of each node, with a rank for each; 0: on CPUs alone, with --ranks",
            whole(0, 1024),
        ),
        "--ranks": value("N", "ranks on each node; as many as GPUs without it", whole(1, 10**6)),
        "--trainers": value(
            "N", "ranks that train, sharing out the tickets of each step; 1 without it",
            whole(1, 1024),
        ),
        "--nodes": value("N", "nodes; 1 without it", whole(1, 10**6), 1),
        "--cpus": value("N", "cores for each rank; 4 without it", whole(1, 10**6), 4),
        "--time": value(
            "TIME", "limit of each start, as 30 (minutes), 04:00:00 or 1-12 (days-hours); 4 hours "
            "without it", _word, "04:00:00",
        ),
        "--partition": value("NAME", "the cluster's own without it", _word),
        "--account": value("NAME", "whose hours to use", _word),
        "--name": value("NAME", "of the job and its log; the output folder's without it", _word),
        "--sbatch": repeated("OPTION", "another option of sbatch", _option),
        "--warning": value(
            "SECONDS", "how long before the limit the last checkpoint is asked for; "
            f"{WARNING_SECONDS} without it", whole(1, 10**6), WARNING_SECONDS,
        ),
        "--chain": flag("for clusters whose jobs may not requeue: each start submits the next one"),
        "--fault-tolerant": flag(
            "go on without attackers that die or hang, instead of starting once more"
        ),
        **TRUSTED,
        "--dry-run": flag("print the batch script, and submit nothing"),
    },
)  # fmt: skip


def read(words: Sequence[str]) -> argparse.Namespace | None:
    """What `words` ask for; None: for help, which is printed.

    Raises:
        UserError: they are none of the command line's, or what they ask for is no job.
    """
    asked = SUBMIT.read(words)
    if asked is None:
        return None
    asked.ranks = asked.ranks or asked.gpus
    if asked.trainers:
        asked.words.append(f"training.trainers={asked.trainers}")
    if not asked.ranks:
        raise UserError(
            "submit: expected --gpus N, the GPUs of each node, or on CPUs alone --ranks N"
        )
    shortest = asked.warning + _SHORTEST_WORK_SECONDS
    if _seconds(asked.time) <= shortest:
        raise UserError(
            f"submit: --time {asked.time} leaves no time to work before the warning, "
            f"{asked.warning} s before its end: expected more than {shortest} s"
        )
    return asked


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
