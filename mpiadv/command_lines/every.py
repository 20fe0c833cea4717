"""Every command's line: how each is read, and the help of all, from their tables."""

import argparse
from collections.abc import Callable, Mapping, Sequence

from mpiadv.command_lines import evaluate, job, launch, submit
from mpiadv.command_lines.described import EXIT_CODES
from mpiadv.command_lines.tables import PLAN, REPORT, STUDY, TRAIN, VISUALIZE, WATCH

READERS: Mapping[str, Callable[[Sequence[str]], argparse.Namespace | launch.Launch | None]] = {
    "train": TRAIN.read,
    "launch": launch.read,
    "evaluate": evaluate.read,
    "report": REPORT.read,
    "visualize": VISUALIZE.read,
    "watch": WATCH.read,
    "plan": PLAN.read,
    "study": STUDY.read,
    "submit": submit.read,
    "job": job.read,
}
"""What the words behind each command ask for; None: for help, which is printed."""

_USAGE = """\
usage: mpiadv [CONFIG] [key.subkey=value ...] [--resume] [--print-config]
       mpiadv COMMAND ... [--help]

Trains a robust classifier; CONFIG is a YAML file, and without one a small data set of digits is
trained in a minute.

{}

{}
"""


def usage() -> str:
    """What `mpiadv --help` prints."""
    commands = (
        TRAIN, launch.LAUNCH, evaluate.EVALUATE, REPORT, VISUALIZE, WATCH, PLAN, STUDY,
        submit.SUBMIT, job.JOB,
    )  # fmt: skip
    rows = {
        **{f"mpiadv {each.example}": each.summary for each in commands},
        "key.subkey=value": "change a setting, for example training.num_steps=500",
        **{option: str(known["help"]) for option, known in TRAIN.options.items()},
        "--version": "print the version, and stop",
    }
    lines = (f"  {name:<27} {summary}" for name, summary in rows.items())
    return _USAGE.format("\n".join(lines), EXIT_CODES)
