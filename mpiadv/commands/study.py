"""`mpiadv study`: reads the command line, and does a study from its runs to its figures."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpiadv.command_lines import CommandLine
from mpiadv.command_lines.numbers import whole
from mpiadv.process.errors import UserError, printable
from mpiadv.process.exit_codes import EXIT_DONE, EXIT_FAILED, EXIT_RESUME_ME
from mpiadv.process.interruption import Interruption
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.report.drawing import style
from mpiadv.settings.registry import find_registered
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder, open_folder, reuse
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.processes import available_cores
from mpiadv.studies.results import write_results
from mpiadv.studies.runner import Means, measure, score, train
from mpiadv.studies.runs import OF_STUDY, request_of
from mpiadv.studies.studies import STUDIES


def parser() -> CommandLine:
    """The command line."""
    studies = "; ".join(f"{name}: {study.summary}" for name, study in STUDIES.items())
    described = CommandLine(
        prog="mpiadv study",
        description="Rerun a study of Bhat, Tsipras and Madry (2019): train what it needs, attack "
        "the trained networks, write results.md, results.html and figures. What is done is not "
        f"done again. Studies: {studies}.",
        epilog="Exit codes: 0 done, 1 some runs failed, 2 bad input, 75 interrupted: the same "
        "command goes on.",
    )
    described.add_argument("name", metavar="NAME", help=f"one of {', '.join(STUDIES)}")
    described.add_argument(
        "words", nargs="*", metavar="KEY=VALUE",
        help="settings of all runs, as section.key=value, or of the study, as study.key=value",
    )  # fmt: skip
    for option, settings in _OPTIONS.items():
        described.add_argument(option, **settings)
    return described


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--preset": {
        "required": True,
        "metavar": "|".join(PRESETS),
        "help": "smoke: seconds on the digits; small: hours on MNIST with two cores; paper: the "
        "paper's setting, for GPUs",
    },
    "--output": {"metavar": "FOLDER", "help": "of the study; studies/NAME-PRESET without it"},
    "--jobs": {
        "type": whole(1, 10_000),
        "metavar": "N",
        "help": "how many runs at a time; as many as there are cores without it",
    },
    "--share": {
        "default": "1/1",
        "metavar": "I/N",
        "help": "do only the I-th of N shares, 1/N to N/N, for several machines with one folder; "
        "the command without it then draws",
    },
    "--reuse": {
        "metavar": "FOLDER",
        "action": "append",
        "default": [],
        "help": "take finished runs of the same settings from another study; may be repeated",
    },
    "--long": {"action": "store_true", "help": "the long version, of studies that have one"},
}


def main(argv: Sequence[str]) -> int:
    """Do a study; returns the exit code.

    Raises:
        UserError: bad input.
    """
    arguments = parser().parse_intermixed_args(argv)
    end_with_the_starter()
    study = find_registered("study", arguments.name, STUDIES)
    slots, share = arguments.jobs or available_cores(), _share(arguments.share)
    folder = _folder(study, arguments)
    with Interruption().listening() as interruption:
        means = Means(
            slots=slots,
            share=share,
            interruption=interruption,
            say=lambda line: print(printable(line), flush=True),
        )
        for other in arguments.reuse:
            for name in reuse(folder, Path(other)):
                means.say(f"{name}: taken from {other}")
        return _do(study, folder, means)


def _do(study: Study, folder: StudyFolder, means: Means) -> int:
    failed = train(folder, means)
    scored = score(folder, study.score(folder), means)
    measured = measure(study.measure(folder), means)
    if means.interruption.requested:
        means.say("interrupted: the same command goes on")
        return EXIT_RESUME_ME
    if means.is_whole:
        with style():
            written = write_results(folder, study.show(folder))
        means.say(f"results in {', '.join(map(str, written))}")
    else:
        means.say("share done; when all are: the same command without --share draws the figures")
    for name, output in failed.items():
        means.say(f"failed: {name}, see {output}")
    if not scored:
        means.say("failed: some scoring, see above")
    if not measured:
        means.say("failed: some measurement, see above")
    return EXIT_FAILED if failed or not (scored and measured) else EXIT_DONE


def _folder(study: Study, arguments: argparse.Namespace) -> StudyFolder:
    preset = find_registered("preset", arguments.preset, PRESETS)
    words = list(arguments.words)
    if arguments.long:
        if "long" not in preset.ranges[arguments.name]:
            raise UserError(f"--long: study {arguments.name} has no long version")
        words.append(f"{OF_STUDY}long=true")
    request = request_of(arguments.name, arguments.preset, preset, words)
    path = arguments.output or f"studies/{arguments.name}-{arguments.preset}"
    return open_folder(Path(path), request, study.runs(request))


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    is_whole = text.isascii() and number.isdigit() and count.isdigit() and len(count) < 7
    if not (is_whole and 1 <= int(number) <= int(count)):
        raise UserError(f"--share {text}: expected I/N, from 1/N to N/N")
    return int(number), int(count)
