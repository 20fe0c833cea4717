"""A training run handed to Slurm, as a batch script of its own."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mpiadv.cluster.script import BatchJob, render
from mpiadv.cluster.slurm import SlurmError, submit_script
from mpiadv.process.errors import UserError
from mpiadv.process.words import counted
from mpiadv.settings import read_words
from mpiadv.storage.run_folder import CHECKPOINTS_NAME, RunState, state_of


def submit(asked: argparse.Namespace) -> str:
    """Submit what a command line asks for; what is to be told: the script where it is only tried.

    Raises:
        UserError: bad input, or Slurm refuses the job.
    """
    output = _output(asked.words, trust_code=asked.trust_code)
    job = _job(asked, output)
    # What puts this mpiadv on PATH; Slurm passes the rest of the environment on.
    programs = shlex.quote(str(Path(sys.executable).parent))
    script = render(job, [f'export PATH={programs}:"$PATH"'])
    if asked.dry_run:
        return script
    try:
        number = submit_script(script, environ=os.environ)
    except SlurmError as error:
        raise UserError(
            f"submit: {error}: run this where the cluster takes jobs, or see the script with "
            "--dry-run"
        ) from None
    return f"{_told(job, number, output)}\n"


def _output(words: Sequence[str], *, trust_code: bool) -> Path:
    """The folder of the run that `words` configure, which must not be done."""
    folder = Path(read_words(words, trust_code=trust_code).output)
    if state_of(folder) is RunState.FINISHED:
        raise UserError(f"{folder} holds a finished run: choose another folder with output=FOLDER")
    return folder


def _job(asked: argparse.Namespace, output: Path) -> BatchJob:
    named = {"--partition": asked.partition, "--account": asked.account}
    return BatchJob(
        words=tuple(asked.words),
        name=asked.name or re.sub(r"[^\w.-]+", "-", output.resolve().name),
        nodes=asked.nodes,
        ranks=asked.ranks,
        gpus=asked.gpus or 0,
        cpus=asked.cpus,
        time=asked.time,
        options=(*(f"{key}={value}" for key, value in named.items() if value), *asked.sbatch),
        warning_seconds=asked.warning,
        is_chain=asked.chain,
        is_fault_tolerant=asked.fault_tolerant,
        trust_code=asked.trust_code,
    )


def _told(job: BatchJob, number: str, output: Path) -> str:
    is_begun = any((output / CHECKPOINTS_NAME).glob("*.pt"))
    size = f"{counted(job.nodes * job.ranks, 'rank')} on {counted(job.nodes, 'node')}"
    end = f'--user="$USER" --name={job.name}' if job.is_chain else number
    return (
        f"job {number}: {size}, {'goes on with' if is_begun else 'trains'} {output}\n"
        f"its place in the queue: squeue --jobs={number}\n"
        f"the run as it goes on:  mpiadv watch {shlex.quote(str(output))}\n"
        f"what it says:           tail -F {job.log(number)}\n"
        f"to end it:              scancel {end}"
    )
