"""Does what a study needs and has not yet: trains its runs, scores its networks. No torch."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from mpiadv.process.errors import UserError
from mpiadv.process.exit_codes import EXIT_BAD_INPUT, EXIT_DONE
from mpiadv.process.interruption import Interruption
from mpiadv.process.programs import python_module
from mpiadv.report.reading import text
from mpiadv.report.series import final_evaluation
from mpiadv.settings import code_words, dump_config
from mpiadv.storage.whole_files import write_text
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program, run_programs
from mpiadv.studies.runs import Run
from mpiadv.studies.scores import Scoring

"""As of all programs of mpiadv."""

_ERROR = re.compile(r"mpiadv: error(?: on rank \d+)?: (.*)")

_ALONE = 1_000_000
"""More slots than anybody has."""

_WORTH_A_PROCESS = 10_000
"""Attack steps times images that take about as long as a process takes to start."""

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Means:
    """With what a study is done.

    Attributes:
        slots: how many single-rank runs may go on at a time.
        share: (number, count) of this process, counted from 1, among those that do the study.
        interruption: set while the study goes on, where a signal asks for its end.
        say: prints a line.
    """

    slots: int
    share: tuple[int, int]
    interruption: Interruption
    say: Say

    @property
    def is_whole(self) -> bool:
        """Whether this process does all of the study."""
        return self.share == (1, 1)


@dataclass(kw_only=True)
class _Progress:
    """What became of the runs so far."""

    folder: StudyFolder
    say: Say
    interruption: Interruption
    succeeded: int = 0
    failed: dict[str, Path] = field(default_factory=dict)
    _said_before: dict[str, int] = field(default_factory=dict)
    """Length of the output of earlier attempts."""

    def place(self, name: str) -> str:
        """The run's number."""
        names = [run.name for run in self.folder.runs]
        return f"({names.index(name) + 1} of {len(names)})"

    def started(self, program: Program) -> None:
        """A run has started."""
        assert program.output is not None
        self._said_before[program.name] = (
            program.output.stat().st_size if program.output.exists() else 0
        )
        self.say(f"{program.name} {self.place(program.name)}: started")

    def ended(self, program: Program, code: int, seconds: float) -> None:
        """A run has ended; bad input of the first one to end is that of the study.

        Raises:
            UserError: what that run said.
        """
        began = f"{program.name} {self.place(program.name)}:"
        if code == EXIT_DONE:
            self.succeeded += 1
            self.say(f"{began} finished after {seconds:.0f} s{accuracy(self.folder, program.name)}")
        elif self.interruption.requested:
            self.say(f"{began} interrupted after {seconds:.0f} s")
        else:
            assert program.output is not None
            reason = _last_line(program.output, self._said_before[program.name])
            if self.folder.has_diverged(program.name):
                self.say(f"{began} diverged after {seconds:.0f} s: {reason}")
                return
            if code == EXIT_BAD_INPUT and not self.succeeded and not self.failed:
                # Runs name the option of their own command line.
                told = reason.replace("output=FOLDER", "--output FOLDER")
                raise UserError(f"run {program.name}: {told}")
            self.failed[program.name] = program.output
            how = f"exit code {code}: {reason}" if code >= 0 else f"killed by signal {-code}"
            self.say(f"{began} failed after {seconds:.0f} s, {how}")


def train(folder: StudyFolder, means: Means) -> dict[str, Path]:
    """Train the runs that are not done, this process's share; those that failed, and their output.

    Raises:
        UserError: the first run to end said that the input is bad.
    """
    progress = _Progress(folder=folder, say=means.say, interruption=means.interruption)
    waiting = []
    for run in _runs_of_share(folder.runs, means):
        if folder.is_done(run.name):
            progress.succeeded += 1
            means.say(
                f"{run.name} {progress.place(run.name)}: done before{accuracy(folder, run.name)}"
            )
        elif folder.has_diverged(run.name):
            means.say(f"{run.name} {progress.place(run.name)}: diverged before")
        else:
            waiting.append(_training(folder, run))
    run_programs(
        waiting, slots=means.slots, interruption=means.interruption,
        on_start=progress.started, on_end=progress.ended,
    )  # fmt: skip
    return progress.failed


def score(folder: StudyFolder, wanted: Sequence[Scoring], means: Means) -> bool:
    """Score what can be and is not yet, this process's share; whether all went well.

    Networks whose training is not finished are left out.
    """
    missing = folder.missing(_share_of(wanted, means))
    if not missing or means.interruption.requested:
        return True
    work = sum(scoring.attack_steps * scoring.num_images for scoring in missing)
    count = max(1, min(means.slots, len(missing), work // _WORTH_A_PROCESS))
    means.say(f"scoring: {len(missing)} attacks, {count} at a time")
    # Dealt out from the costliest, so that none has much more to do than the others.
    ordered = sorted(missing, key=lambda scoring: -scoring.attack_steps * scoring.num_images)
    programs = [_scoring(folder, ordered[n::count], f"{means.share[0]}-{n}") for n in range(count)]
    codes: list[int] = []
    run_programs(
        programs, slots=count, interruption=means.interruption,
        on_end=lambda program, code, seconds: codes.append(code),
    )  # fmt: skip
    for program in programs:
        Path(program.command[-1]).unlink(missing_ok=True)
    return not any(codes) or means.interruption.requested


def measure(programs: Sequence[Program], means: Means) -> bool:
    """Measure speeds, one at a time and nothing beside it; whether all went well.

    They are to be compared, so one machine makes all of them: that of the first share.
    """
    return means.share[0] != 1 or _run_all(programs, means, slots=1, done="measured")


def evaluate(programs: Sequence[Program], means: Means) -> bool:
    """Evaluate networks, this process's share, side by side; whether all went well."""
    return _run_all(_share_of(programs, means), means, slots=means.slots, done="evaluated")


def _run_all(programs: Sequence[Program], means: Means, *, slots: int, done: str) -> bool:
    """Run programs and tell what became of each; whether all went well, or nobody waits for it."""
    if not programs or means.interruption.requested:
        return True
    failed: list[str] = []

    def ended(program: Program, code: int, seconds: float) -> None:
        place = f"{program.name} ({programs.index(program) + 1} of {len(programs)})"
        if code == EXIT_DONE:
            means.say(f"{place}: {done} after {seconds:.0f} s")
        elif not means.interruption.requested:
            failed.append(program.name)
            means.say(f"{place}: failed after {seconds:.0f} s, see {program.output}")

    run_programs(programs, slots=slots, interruption=means.interruption, on_end=ended)
    return not failed


def accuracy(folder: StudyFolder, name: str) -> str:
    """The final accuracy of a run as words behind a comma; nothing where its log has none."""
    log = folder.log(name)
    for row in final_evaluation(log) if log else ():
        return (
            f", natural {100 * row['natural_accuracy']:.2f} %, "
            f"{text(row['attack'])} {100 * row['adversarial_accuracy']:.2f} %"
        )
    return ""


def _training(folder: StudyFolder, run: Run) -> Program:
    path = folder.folder_of(run.name)
    path.mkdir(parents=True, exist_ok=True)
    config = folder.config_of(run)
    write_text(path / "config.yaml", dump_config(config))
    # What the study's command line says, and its runs would not take from a file.
    chosen = code_words(config)
    # Through the command, not its module: it knows what mpirun needs.
    launch = (*python_module("mpiadv.cli"), "launch", "-n", str(run.ranks))
    program = launch if run.ranks > 1 else python_module("mpiadv.run")
    return Program(
        name=run.name,
        command=(*program, str(path / "config.yaml"), *chosen, "--resume"),
        slots=_ALONE if run.is_alone else run.ranks,
        output=path.with_name(f"{run.name}.txt"),
    )


def _scoring(folder: StudyFolder, part: Sequence[Scoring], number: str) -> Program:
    """A process that scores `part`: what it is to do is the file that its last word names."""
    path = folder.path / f"scoring-{number}.json"
    request = {
        "scores": str(folder.scores_path),
        "networks": {run.name: str(folder.folder_of(run.name)) for run in folder.runs},
        "trusted": code_words(folder.request.config),
        "wanted": [asdict(scoring) for scoring in part],
    }
    write_text(path, json.dumps(request))
    command = (*python_module("mpiadv.studies.score"), str(path))
    return Program(name=path.stem, command=command)


def _runs_of_share(runs: Sequence[Run], means: Means) -> list[Run]:
    """Runs whose speed is measured are to be compared, so the first share's machine makes all."""
    timed = [run for run in runs if run.is_alone] if means.share[0] == 1 else []
    return [*timed, *_share_of([run for run in runs if not run.is_alone], means)]


def _share_of(items: Sequence[T], means: Means) -> list[T]:
    number, count = means.share
    return list(items[number - 1 :: count])


def _last_line(output: Path, start: int) -> str:
    """What a program said last, from byte `start` on: its error, or else whatever it was."""
    lines = output.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    errors = [match[1] for match in map(_ERROR.match, lines) if match]
    return (errors or lines or [f"see {output}"])[-1]
