"""The help of all commands, from their tables."""

from mpiadv.command_lines.described import EXIT_CODES
from mpiadv.command_lines.evaluate import EVALUATE
from mpiadv.command_lines.job import JOB
from mpiadv.command_lines.launch import LAUNCH
from mpiadv.command_lines.plan import PLAN
from mpiadv.command_lines.report import REPORT
from mpiadv.command_lines.study import STUDY
from mpiadv.command_lines.submit import SUBMIT
from mpiadv.command_lines.train import TRAIN
from mpiadv.command_lines.watch import WATCH

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
    commands = (TRAIN, LAUNCH, EVALUATE, REPORT, WATCH, PLAN, STUDY, SUBMIT, JOB)
    rows = {
        **{f"mpiadv {each.example}": each.summary for each in commands},
        "key.subkey=value": "change a setting, for example training.num_steps=500",
        **{option: str(known["help"]) for option, known in TRAIN.options.items()},
        "--version": "print the version, and stop",
    }
    lines = (f"  {name:<27} {summary}" for name, summary in rows.items())
    return _USAGE.format("\n".join(lines), EXIT_CODES)
