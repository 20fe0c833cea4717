"""Does a study from its runs to its figures."""

import argparse
from pathlib import Path

from mpiadv.process.errors import UserError, printable
from mpiadv.process.exit_codes import EXIT_DONE, EXIT_FAILED, EXIT_RESUME_ME
from mpiadv.process.interruption import Interruption
from mpiadv.report.drawing import style
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder, open_folder, reuse
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.processes import available_cores
from mpiadv.studies.results import write_results
from mpiadv.studies.runner import Means, evaluate, measure, score, train
from mpiadv.studies.runs import OF_STUDY, request_of
from mpiadv.studies.studies import STUDIES


def conduct(asked: argparse.Namespace) -> int:
    """Do the study that a command line asks for; returns the exit code.

    Raises:
        UserError: bad input.
    """
    study = STUDIES[asked.name]
    folder = _folder(study, asked)
    with Interruption().listening() as interruption:
        means = Means(
            slots=asked.jobs or available_cores(),
            share=asked.share,
            interruption=interruption,
            say=lambda line: print(printable(line), flush=True),
        )
        for other in asked.reuse:
            for name in reuse(folder, Path(other)):
                means.say(f"{name}: taken from {other}")
        return _do(study, folder, means)


def _do(study: Study, folder: StudyFolder, means: Means) -> int:
    failed = train(folder, means)
    scored = score(folder, study.score(folder), means)
    evaluated = evaluate(study.evaluate(folder), means)
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
    if not evaluated:
        means.say("failed: some evaluation, see above")
    if not measured:
        means.say("failed: some measurement, see above")
    return EXIT_FAILED if failed or not (scored and evaluated and measured) else EXIT_DONE


def _folder(study: Study, asked: argparse.Namespace) -> StudyFolder:
    preset = PRESETS[asked.preset]
    words = list(asked.words)
    if asked.long:
        if "long" not in preset.ranges[asked.name]:
            raise UserError(f"--long: study {asked.name} has no long version")
        words.append(f"{OF_STUDY}long=true")
    request = request_of(asked.name, asked.preset, preset, words)
    path = asked.output or f"studies/{asked.name}-{asked.preset}"
    return open_folder(Path(path), request, study.runs(request))
