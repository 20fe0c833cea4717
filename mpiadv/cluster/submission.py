"""A training run handed to Slurm, as a batch script of its own.

`slurm/train.sbatch` and `slurm/requeue.sbatch` are such scripts. What a job does is `mpiadv job`;
the script tells Slurm what it needs, and where mpiadv is.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mpiadv.cluster.slurm import SlurmError, submit_script
from mpiadv.command_lines.described import TRUST_OPTION
from mpiadv.contract.teams import Layout, place_teams
from mpiadv.process.errors import UserError
from mpiadv.process.words import counted
from mpiadv.settings import Config, TrainingConfig, read_words
from mpiadv.storage.run_folder import CHECKPOINTS_NAME, RunState, state_of

ACTIVATE = ("# shellcheck source=/dev/null", 'source "$HOME/mpiadv/.venv/bin/activate"')
"""The shell that puts mpiadv on PATH, where it lies as the README has it."""

_TEMPLATE = """\
#!/bin/bash
{head}
#
# Three places to change:

# (1) What of the cluster. One rank for each task, and a GPU for each, asked for by the node, not by
# the task: Open MPI starts one daemon on a node, which must see all of them. On CPUs alone leave
# --gpus-per-node out.
#SBATCH --nodes={job.nodes} --ntasks-per-node={job.ranks} {gpus}--cpus-per-task={job.cpus}
#SBATCH --time={job.time}
#SBATCH --job-name={job.name} --output={log}
{options}
# Later starts go on in the same file.
#SBATCH --open-mode=append {requeue}
# So many seconds before the limit this script is told, and it alone (B:): otherwise the ranks would
# be orphaned under mpirun, and Slurm would record success.
#SBATCH --signal=B:USR1@{job.warning}

# (2) Where mpiadv is.
{environment}

# (3) What to train.
exec mpiadv {words}
"""

_REQUEUED = """\
# A training run that outlives time limits, preemption and dead nodes. Submit it once: it requeues
# itself, and goes on from its last checkpoint until it is done.
#
#   sbatch slurm/train.sbatch         (or: mpiadv submit configs/mnist.yaml --gpus 4)"""

_CHAINED = """\
# As train.sbatch, for a cluster whose jobs may not requeue themselves, or where preemption cancels
# them: every start first submits this script once more, to begin when it has ended, however it
# ends. What is left of a finished run's chain goes away by itself.
#
#   sbatch slurm/requeue.sbatch       (or: mpiadv submit configs/mnist.yaml --gpus 4 --chain)
#   scancel --user="$USER" --name={job.name}    ends it; to cancel one job alone starts the next"""


def submit(asked: argparse.Namespace) -> str:
    """Submit what a command line asks for; what is to be told: the script where it is only tried.

    Raises:
        UserError: bad input, or Slurm refuses the job.
    """
    config = read_words(asked.words, trust_code=asked.trust_code)
    output = _output(config)
    _require_teams(config.training, nodes=asked.nodes, ranks=asked.ranks)
    asked.name = asked.name or re.sub(r"[^\w.-]+", "-", output.resolve().name)
    # What puts this mpiadv on PATH; Slurm passes the rest of the environment on.
    programs = shlex.quote(str(Path(sys.executable).parent))
    script = render(asked, [f'export PATH={programs}:"$PATH"'])
    if asked.dry_run:
        return script
    try:
        number = submit_script(script, environ=os.environ)
    except SlurmError as error:
        raise UserError(
            f"submit: {error}: run this where the cluster takes jobs, or see the script with "
            "--dry-run"
        ) from None
    return f"{_told(asked, number, output)}\n"


def render(asked: argparse.Namespace, environment: Sequence[str]) -> str:
    """The batch script of what a command line asks for, with a name.

    `environment` are the lines of shell that put mpiadv on PATH.
    """
    named = {"--partition": asked.partition, "--account": asked.account}
    options = [*(f"{key}={value}" for key, value in named.items() if value), *asked.sbatch]
    words = [
        "job",
        *(["--chain", '"$0"'] if asked.chain else []),
        *(["--fault-tolerant"] if asked.fault_tolerant else []),
        *([TRUST_OPTION] if asked.trust_code else []),
        *map(shlex.quote, asked.words),
    ]
    return _TEMPLATE.format(
        job=asked,
        head=_CHAINED.format(job=asked) if asked.chain else _REQUEUED,
        gpus=f"--gpus-per-node={asked.gpus} " if asked.gpus else "",
        log=_log(asked, "%j"),
        options="".join(f"#SBATCH {option}\n" for option in options),
        requeue="--no-requeue" if asked.chain else "--requeue",
        environment="\n".join(environment),
        words=" ".join(words),
    )


def _log(asked: argparse.Namespace, number: str) -> str:
    """Name of the log of the job with this number."""
    # A chain is many jobs, and one log.
    return f"{asked.name}.log" if asked.chain else f"{asked.name}-{number}.log"


def _require_teams(training: TrainingConfig, *, nodes: int, ranks: int) -> None:
    """Refuse what the ranks would refuse once they are there, perhaps in hours."""
    hosts = [f"node {node}" for node in range(nodes) for _ in range(ranks)]
    place_teams(hosts, training.trainers, Layout(training.team_layout))


def _output(config: Config) -> Path:
    """The folder of the run, which must not be done."""
    folder = Path(config.output)
    if state_of(folder) is RunState.FINISHED:
        raise UserError(f"{folder} holds a finished run: choose another folder with output=FOLDER")
    return folder


def _told(asked: argparse.Namespace, number: str, output: Path) -> str:
    is_begun = any((output / CHECKPOINTS_NAME).glob("*.pt"))
    size = f"{counted(asked.nodes * asked.ranks, 'rank')} on {counted(asked.nodes, 'node')}"
    end = f'--user="$USER" --name={asked.name}' if asked.chain else number
    return (
        f"job {number}: {size}, {'goes on with' if is_begun else 'trains'} {output}\n"
        f"its place in the queue: squeue --jobs={number}\n"
        f"the run as it goes on:  mpiadv watch {shlex.quote(str(output))}\n"
        f"what it says:           tail -F {_log(asked, number)}\n"
        f"to end it:              scancel {end}"
    )
