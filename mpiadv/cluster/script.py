"""The batch script of a training run: `slurm/train.sbatch` and `slurm/requeue.sbatch` are its text.

What a job does is `mpiadv job`; the script tells Slurm what it needs, and where mpiadv is.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mpiadv.command_lines.described import TRUST_OPTION
from mpiadv.command_lines.submit import WARNING_SECONDS

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
#SBATCH --signal=B:USR1@{job.warning_seconds}

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


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A training run as a job.

    `ranks` and `gpus` are those of a node (0: no GPU is asked for), `cpus` those of a rank; `time`
    is the limit of each start, as Slurm writes it, and the last checkpoint is asked for
    `warning_seconds` before. `options` are further ones of sbatch, each with its dashes. With
    `is_chain` each start submits the next one, instead of being requeued.
    """

    words: tuple[str, ...]
    name: str
    nodes: int = 1
    ranks: int = 4
    gpus: int = 0
    cpus: int = 4
    time: str = "04:00:00"
    options: tuple[str, ...] = ()
    warning_seconds: int = WARNING_SECONDS
    is_chain: bool = False
    is_fault_tolerant: bool = False
    trust_code: bool = False

    def log(self, number: str) -> str:
        """Name of the log of the job with this number."""
        # A chain is many jobs, and one log.
        return f"{self.name}.log" if self.is_chain else f"{self.name}-{number}.log"


def render(job: BatchJob, environment: Sequence[str]) -> str:
    """The batch script; `environment` are the lines of shell that put mpiadv on PATH."""
    words = [
        "job",
        *(["--chain", '"$0"'] if job.is_chain else []),
        *(["--fault-tolerant"] if job.is_fault_tolerant else []),
        *([TRUST_OPTION] if job.trust_code else []),
        *map(shlex.quote, job.words),
    ]
    return _TEMPLATE.format(
        job=job,
        head=_CHAINED.format(job=job) if job.is_chain else _REQUEUED,
        gpus=f"--gpus-per-node={job.gpus} " if job.gpus else "",
        log=job.log("%j"),
        options="".join(f"#SBATCH {option}\n" for option in job.options),
        requeue="--no-requeue" if job.is_chain else "--requeue",
        environment="\n".join(environment),
        words=" ".join(words),
    )
