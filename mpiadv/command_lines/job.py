"""The command line of what a batch script runs."""

import argparse
from collections.abc import Sequence

from mpiadv.command_lines.described import TRUST_OPTION, TRUSTED, Described, flag, value, words
from mpiadv.command_lines.tables import STUDY, TRAIN

JOB = Described(
    name="job",
    example="job CONFIG ...",
    summary="the same in a batch script of your own, as its last line",
    usage="mpiadv job [--chain SCRIPT] [--fault-tolerant] [CONFIG] [KEY=VALUE ...]\n"
    "       mpiadv job study NAME ...",
    about="For the last line of a batch script, after `exec`: train on all tasks of the Slurm job "
    "around it, or do a study, going on with what is there; and if it is not done at the end, "
    "requeue the job. SIGUSR1, before the time limit, asks for a checkpoint first.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 to be gone on with.",
    words={"words": words(argparse.REMAINDER, "CONFIG ... | study ...", "as after mpiadv")},
    options={
        "--chain": value(
            "SCRIPT",
            'do not requeue: submit SCRIPT, which is to be the job\'s own, "$0", to begin when '
            "this job has ended",
        ),
        "--fault-tolerant": flag("train on without attackers that are lost"),
        **TRUSTED,
    },
)


def read(given: Sequence[str]) -> argparse.Namespace | None:
    """What `given` asks for; None: for help, which is printed.

    `words` of it are those of the work, and options of the work that came before them.

    Raises:
        UserError: it is none of the command line's, or not of the work's.
    """
    asked = JOB.read(given)
    if asked is None:
        return None
    options = {"--fault-tolerant": asked.fault_tolerant, TRUST_OPTION: asked.trust_code}
    asked.words += [option for option, is_given in options.items() if is_given]
    return asked if _read_work(asked.words) is not None else None


def _read_work(work: Sequence[str]) -> object | None:
    if work[:1] == ["study"]:
        return STUDY.read(work[1:])
    return TRAIN.read([word for word in work if word != "--fault-tolerant"])
