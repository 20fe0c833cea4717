"""What a batch script runs. Starts the work, and sees to it that it is gone on with.

Owns which end of a start means that the run is done, has failed, or is to be started once more, by
requeueing the job or by leaving it to the next one of a chain.
"""

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mpiadv.cluster.attempt import Attempt
from mpiadv.cluster.slurm import (
    SlurmError,
    cancel,
    job_of,
    num_tasks,
    requeue,
    submit_script,
    without_job,
)
from mpiadv.command_lines.described import TRUST_OPTION
from mpiadv.process.errors import tell_error
from mpiadv.process.exit_codes import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_RESUME_ME
from mpiadv.process.programs import python_module
from mpiadv.settings import read_words
from mpiadv.storage.run_folder import CHECKPOINTS_NAME, RunState, state_of
from mpiadv.storage.whole_files import write_text

FRUITLESS_STARTS = 10
"""After so many starts in a row without a newer checkpoint a run is given up."""

MAX_RESTARTS = 100
"""After so many a job is given up whose progress cannot be seen."""

_COUNT_NAME = "fruitless_starts"
_CHECKPOINT = re.compile(r"checkpoint-\d+\.pt")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a job does, in the `folder` of a run; None for a study: only its exit code tells."""

    command: tuple[str, ...]
    folder: Path | None

    def is_done(self, code: int | None) -> bool:
        """Whether it is done, by the marker on disk or else by the last exit code."""
        if self.folder is None:
            return code == EXIT_DONE
        # Only the marker tells: mpirun returns 0 also when a node was lost.
        return state_of(self.folder) is RunState.FINISHED

    def progress(self) -> str:
        """The newest checkpoint's name; empty where there is none."""
        folder = self.folder / CHECKPOINTS_NAME if self.folder else None
        names = os.listdir(folder) if folder and folder.is_dir() else []
        return max(filter(_CHECKPOINT.fullmatch, names), default="")


class Verdict(Enum):
    """What a start's end means."""

    DONE = "done"
    FAILED = "failed: it would not go better a second time"
    ENDED_BY_SLURM = "ended by Slurm"
    FRUITLESS = "no further in many starts: given up"
    GO_ON = "not done yet"


def work_in_job(words: Sequence[str], attempt: Attempt, *, chain: str | None) -> int:
    """Do what `words` mean in the Slurm job around us, as an attempt that listens.

    `chain` is the script of the next job, which goes on in place of this one; None: this one is
    requeued. Returns the exit code.

    Raises:
        UserError: bad input, or there is no job.
    """
    job = job_of(os.environ)
    work = work_of(words, os.environ)
    if work.folder and work.is_done(None):
        _say(job, f"{work.folder} holds a finished run: nothing to do")
        return EXIT_DONE
    successor = _submit_successor(job, chain) if chain else ""
    before = work.progress()
    _say(job, _beginning(before))
    code = attempt.run(work.command)
    verdict = judge(work, attempt, before=before, environ=os.environ)
    _say(job, f"exit code {code}; {verdict.value}{_place(work)}")
    if successor:
        _leave_to(successor, verdict)
    elif verdict is Verdict.GO_ON:
        _requeue(job)
    return _exit_code(verdict, code)


def work_of(words: Sequence[str], environ: Mapping[str, str]) -> Work:
    """What the words of `mpiadv job` mean, in the job that `environ` tells of.

    Raises:
        UserError: the configuration is wrong.
    """
    mpiadv = python_module("mpiadv.cli")
    if words[:1] == ["study"]:
        return Work(command=(*mpiadv, *words), folder=None)
    settings = [word for word in words if not word.startswith("--")]
    folder = Path(read_words(settings, trust_code=TRUST_OPTION in words).output)
    ranks = str(num_tasks(environ))
    resume = () if "--resume" in words else ("--resume",)
    return Work(command=(*mpiadv, "launch", "-n", ranks, *words, *resume), folder=folder)


def judge(work: Work, attempt: Attempt, *, before: str, environ: Mapping[str, str]) -> Verdict:
    """What the end of an attempt means that began at the checkpoint `before`; counts it."""
    if work.is_done(attempt.code):
        _forget_starts(work)
        return Verdict.DONE
    if attempt.is_ended:
        return Verdict.ENDED_BY_SLURM
    # A rank that was just starting dies of the warning, with whatever code.
    if attempt.code == EXIT_BAD_INPUT or (attempt.code == EXIT_FAILED and not attempt.is_warned):
        return Verdict.FAILED
    if _fruitless_starts(work, before) >= FRUITLESS_STARTS:
        return Verdict.FRUITLESS
    if int(environ.get("SLURM_RESTART_COUNT", "0")) >= MAX_RESTARTS and work.folder is None:
        return Verdict.FRUITLESS
    return Verdict.GO_ON


def _fruitless_starts(work: Work, before: str) -> int:
    """How many starts in a row, this one included, brought no newer checkpoint; written down."""
    if work.folder is None or work.progress() != before:
        _forget_starts(work)
        return 0
    path = work.folder / _COUNT_NAME
    try:
        count = int(path.read_text(encoding="utf-8")) + 1 if path.exists() else 1
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{count}\n")
    except (OSError, ValueError) as error:
        # Rather once too often than to give up for want of a number.
        print(f"mpiadv: warning: cannot count starts in {path}: {error}", file=sys.stderr)
        return 0
    return count


def _forget_starts(work: Work) -> None:
    if work.folder is not None:
        with suppress(OSError):
            (work.folder / _COUNT_NAME).unlink(missing_ok=True)


def _submit_successor(job: str, script: str) -> str:
    """Submit the next job of the chain; its number, empty where Slurm refuses it."""
    try:
        number = submit_script(
            Path(script).read_text(encoding="utf-8"),
            options=[f"--dependency=afterany:{job}"],
            environ=without_job(os.environ),
        )
    except (SlurmError, OSError) as error:
        print(f"mpiadv: warning: cannot submit what follows job {job}: {error}", file=sys.stderr)
        return ""
    _say(job, f"job {number} follows")
    return number


def _leave_to(successor: str, verdict: Verdict) -> None:
    """Let the next job of the chain go on, or cancel it where there is nothing to go on with."""
    if verdict in (Verdict.DONE, Verdict.FAILED, Verdict.FRUITLESS):
        try:
            cancel(successor)
        except SlurmError as error:
            print(f"mpiadv: warning: cannot cancel job {successor}: {error}", file=sys.stderr)


def _requeue(job: str) -> None:
    try:
        requeue(job)
    except SlurmError as error:
        tell_error(
            f"cannot requeue job {job}: {error}: submit it again to go on, and if jobs may not "
            "requeue here, as slurm/requeue.sbatch does"
        )


def _exit_code(verdict: Verdict, code: int) -> int:
    codes = {Verdict.DONE: EXIT_DONE, Verdict.FRUITLESS: EXIT_FAILED, Verdict.FAILED: code}
    return codes.get(verdict, EXIT_RESUME_ME)


def _beginning(checkpoint: str) -> str:
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    nodes = os.environ.get("SLURM_JOB_NODELIST", "?")
    from_where = f", from {checkpoint}" if checkpoint else ""
    return f"start {restarts + 1} on {nodes}{from_where}"


def _place(work: Work) -> str:
    return f"; newest is {work.progress()}" if work.progress() else ""


def _say(job: str, text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job {job}: {text}", flush=True)
