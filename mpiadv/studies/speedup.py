"""Speed-up over one rank by the number of ranks (Bhat et al., figure 9): what is measured, and how.

Emulated, waits stand in the place of the devices' work, and all else is as in training; real, the
runs train on this machine's cores. Draws from measurements and logs alone: knows no torch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpiadv.contract.tickets import StalenessRule
from mpiadv.emulation.measurements import MEASUREMENTS, Measured, key_of, keys, scenario_text
from mpiadv.emulation.scenario import Scenario
from mpiadv.process.errors import UserError
from mpiadv.process.programs import python_module
from mpiadv.report.reading import Log
from mpiadv.report.series import row_seconds
from mpiadv.runlog.rows import Rows
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program, available_cores
from mpiadv.studies.results import Results
from mpiadv.studies.runs import OF_STUDY, Request, Run
from mpiadv.studies.speedup_figures import shown

IMAGE_VALUES = 784
"""Float32 values of an emulated image: MNIST's."""

OUTSTANDING = 2
POLL_SECONDS = 0.0005
EMULATED_SETTINGS = ("attack.num_steps", "data.batch_size")
"""Settings of a run that an emulated one has, too."""

EMULATED_WARMUP_STEPS, REAL_WARMUP_STEPS = 20, 12

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measurement to make."""

    ranks: int
    trainer_crafts: bool
    repeat: int

    @property
    def name(self) -> str:
        """What to call it; its run's name where there is one."""
        waiting = "" if self.trainer_crafts else "-trainer-waits"
        return f"ranks{self.ranks}{waiting}-{self.repeat + 1}"


def runs(request: Request) -> list[Run]:
    """Real work: a short run for each measurement, nothing beside it; emulated: none."""
    _require_measurable(request)
    if not request.ranges["real"]:
        return []
    rule = _rule(request)
    return [
        Run(
            name=point.name,
            overrides={
                "staleness.max_staleness": rule.max_staleness,
                "staleness.final_staleness": rule.final_staleness,
                "staleness.publish_every": rule.publish_every,
                "staleness.trainer_crafts": point.trainer_crafts,
                # The last tickets leave attackers without work.
                "training.num_steps": REAL_WARMUP_STEPS
                + request.ranges["real_steps"]
                + rule.window
                + 1,
                "evaluation.every_steps": 0,
                "evaluation.num_steps": 1,
                "evaluation.final_samples": 1,
                "checkpoint.every_steps": 0,
            },
            ranks=point.ranks,
            is_alone=True,
        )
        for point in points(request)
    ]


def points(request: Request) -> list[Point]:
    """The measurements; repeats take turns, so that passing noise meets every number of ranks."""
    most = available_cores() if request.ranges["real"] else max(request.ranges["ranks"])
    ranks = sorted({1, *(n for n in request.ranges["ranks"] if n <= most)})
    return [
        Point(ranks=number, trainer_crafts=crafts, repeat=repeat)
        for repeat in range(request.ranges["repeats"])
        for number in ranks
        for crafts in ((True, False) if number > 1 else (True,))
    ]


def measure(folder: StudyFolder) -> list[Program]:
    """The emulations that have not been measured."""
    if folder.ranges["real"]:
        return []
    known = keys(MEASUREMENTS.read(measurements_path(folder)))
    return [
        emulation(folder, scenario, ranks=point.ranks, repeat=point.repeat, name=point.name)
        for point, scenario in _scenarios(folder.request)
        if key_of(scenario, point.ranks, point.repeat) not in known
    ]


def emulation(
    folder: StudyFolder, scenario: Scenario, *, ranks: int, repeat: int, name: str
) -> Program:
    """The program that measures a scenario and adds the row to the folder's measurements."""
    words = [scenario_text(scenario), str(measurements_path(folder)), str(repeat)]
    # Through the command, not its module: it knows what mpirun needs.
    program = (*python_module("mpiadv.cli"), "launch", "-n", str(ranks), "emulate")
    return Program(
        name=name,
        command=(*program, *words),
        output=folder.path / "measuring.txt",
    )


def scenario_of(request: Request, point: Point) -> Scenario:
    """What is emulated for a measurement."""
    ranges, rule = request.ranges, _rule(request)
    return Scenario(
        train_seconds=ranges["train_ms"] / 1000,
        craft_seconds=ranges["craft_ms"] / 1000,
        num_attack_steps=request.config.attack.num_steps,
        num_parameters=ranges["num_parameters"],
        batch_size=request.config.data.batch_size,
        image_values=IMAGE_VALUES,
        max_staleness=rule.max_staleness,
        final_staleness=rule.final_staleness,
        publish_every=rule.publish_every,
        outstanding=OUTSTANDING,
        warmup_steps=EMULATED_WARMUP_STEPS,
        measured_steps=ranges["num_steps"],
        poll_seconds=POLL_SECONDS,
        trainer_crafts=point.trainer_crafts,
    ).sized_for(point.ranks)


def measurements(folder: StudyFolder) -> Rows:
    """What has been measured of this study, a row each."""
    if folder.ranges["real"]:
        found = [_measured(folder, point) for point in points(folder.request)]
        return MEASUREMENTS.rows([one for one in found if one is not None])
    rows = MEASUREMENTS.read(measurements_path(folder))
    wanted = {
        key_of(scenario, point.ranks, point.repeat)
        for point, scenario in _scenarios(folder.request)
    }
    chosen: Rows = rows[np.array([key in wanted for key in keys(rows)], bool)]
    return chosen


def show(folder: StudyFolder) -> Results:
    """Figure 9, and the tables behind it."""
    return shown(measurements(folder), is_real=folder.ranges["real"])


SPEEDUP = Study(
    runs=runs,
    measure=measure,
    show=show,
)


def measurements_path(folder: StudyFolder) -> Path:
    """The file of a study's measured speeds."""
    return folder.path / "speed.h5"


def measured_in(log: Log, point: Point, num_steps: int) -> Measured | None:
    """What a run's log tells of `num_steps` steps after the warm-up; None where it has fewer."""
    window = slice(REAL_WARMUP_STEPS, REAL_WARMUP_STEPS + num_steps)
    rows = log.train[window]
    if len(rows) < num_steps:
        return None
    wall = float(row_seconds(log)[window].sum())
    attackers_wall = wall * max(1, point.ranks - 1)
    return Measured(
        ranks=point.ranks,
        trainer_crafts=point.trainer_crafts,
        repeat=point.repeat,
        num_steps=num_steps,
        train_seconds=float(np.median(rows["train_seconds"])),
        craft_seconds=float(np.median(rows["craft_seconds"])),
        ticket_seconds=wall / num_steps,
        idle=_share(rows, "wait_seconds", wall),
        late=NAN,
        parameter_wait=_share(rows, "parameter_wait_seconds", attackers_wall),
        trainer_wait=_share(rows, "trainer_wait_seconds", attackers_wall),
        grant_wait=_share(rows, "grant_wait_seconds", attackers_wall),
        first_staleness=float(rows["first_staleness"].mean()),
        first_staleness_worst=int(rows["first_staleness"].max()),
        last_staleness=float(rows["last_staleness"].mean()),
        last_staleness_worst=int(rows["last_staleness"].max()),
        own_seconds=NAN,
        copy_seconds=NAN,
        poll_seconds=NAN,
        cores=NAN,
        others=NAN,
        scenario="",
    )


def _share(rows: Rows, column: str, wall: float) -> float:
    return float(rows[column].sum()) / wall


def _measured(folder: StudyFolder, point: Point) -> Measured | None:
    log = folder.log(point.name)
    return measured_in(log, point, folder.ranges["real_steps"]) if log else None


def _scenarios(request: Request) -> list[tuple[Point, Scenario]]:
    return [(point, scenario_of(request, point)) for point in points(request)]


def _rule(request: Request) -> StalenessRule:
    return StalenessRule(
        max_staleness=request.ranges["max_staleness"],
        final_staleness=request.ranges["final_staleness"],
        publish_every=request.ranges["publish_every"],
    )


def _require_measurable(request: Request) -> None:
    """Refuse what cannot be measured.

    Raises:
        UserError: naming the setting.
    """
    _rule(request)  # refuses what would deadlock
    vain = [name for name in request.changes if not name.startswith(OF_STUDY)]
    if not request.ranges["real"] and (vain := sorted({*vain} - {*EMULATED_SETTINGS})):
        raise UserError(
            f"{vain[0]} changes nothing where work is emulated: leave it out, or add "
            "study.real=true"
        )
    if request.ranges["real"] and min(request.ranges["ranks"]) > available_cores():
        raise UserError(
            f"study.ranks={request.ranges['ranks']}: real work takes a core for each rank, and "
            f"there are {available_cores()} here: use fewer ranks, or study.real=false"
        )
