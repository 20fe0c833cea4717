"""What Slurm is asked and told, by its own commands, and what it tells a job by its environment."""

import re
import subprocess
from collections.abc import Mapping, Sequence

from mpiadv.process.errors import UserError

_SECONDS_TO_ANSWER = 120
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


class SlurmError(Exception):
    """One of Slurm's commands failed; the text is what it said, in one line."""


def job_of(environ: Mapping[str, str]) -> str:
    """How Slurm's commands call the job around us.

    Raises:
        UserError: there is none.
    """
    if "SLURM_JOB_ID" not in environ:
        raise UserError("this is no Slurm job: expected in a batch script; see mpiadv job --help")
    if "SLURM_ARRAY_TASK_ID" in environ:
        # One task of an array has the array's own number, by which all of them would be meant.
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def num_tasks(environ: Mapping[str, str]) -> int:
    """How many tasks the job around us has, on all of its nodes.

    Raises:
        UserError: Slurm does not tell.
    """
    # SLURM_NTASKS is not set by every version where only --ntasks-per-node was given.
    told = environ.get("SLURM_TASKS_PER_NODE", "")
    counts = [_TASKS.fullmatch(part) for part in told.split(",")]
    found = [count for count in counts if count]
    if len(found) != len(counts):
        raise UserError(
            f"SLURM_TASKS_PER_NODE={told}: expected as in 4(x2),3: run this in a batch script"
        )
    return sum(int(count[1]) * int(count[2] or 1) for count in found)


def submit_script(script: str, *, options: Sequence[str] = (), environ: Mapping[str, str]) -> str:
    """Hand in the text of a batch script; the new job's number.

    Raises:
        SlurmError: Slurm refused it, or is not here.
    """
    told = _ask(["sbatch", "--parsable", *options], environ=environ, given=script)
    # On several clusters it is NUMBER;CLUSTER.
    return told.strip().partition(";")[0]


def requeue(job: str) -> None:
    """Put a running job back into the queue, which ends its processes. Raises SlurmError."""
    _ask(["scontrol", "requeue", job])


def cancel(job: str) -> None:
    """Take a job out of the queue. Raises SlurmError."""
    _ask(["scancel", job])


def without_job(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what belongs to the job around us, for another one."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }


def _ask(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, given: str | None = None
) -> str:
    try:
        completed = subprocess.run(
            command, env=environ, input=given, stdin=None if given else subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER,
        )  # fmt: skip
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} on PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(str(error)) from None
    if completed.returncode != 0:
        last_line = completed.stderr.strip().rpartition("\n")[2]
        raise SlurmError(last_line or f"{command[0]} failed without a word")
    return completed.stdout
