"""The paper's headline, 26 times as fast: 40 attack steps against 8, one rank against several.

All runs train the same network for the same number of steps, one after the other, nothing beside
them. Draws from logs and measurements alone: knows no torch.
"""

from dataclasses import replace

import numpy as np

from mpiadv.emulation.measurements import MEASUREMENTS, key_of, keys
from mpiadv.emulation.scenario import Scenario
from mpiadv.process.errors import UserError
from mpiadv.report.reading import Floats, Log
from mpiadv.report.series import in_blocks, row_seconds
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.headline_figures import Arm, Reached, shown
from mpiadv.studies.processes import Program, available_cores
from mpiadv.studies.results import Results
from mpiadv.studies.runs import Request, Run, require_unchanged
from mpiadv.studies.speedup import (
    IMAGE_VALUES,
    OUTSTANDING,
    POLL_SECONDS,
    emulation,
    measurements_path,
)

MANY_STEPS, FEW_STEPS = 40, 8
"""Attack steps in training: those of Madry et al. (2018), and the paper's."""

REFRESHED = {
    "staleness.max_staleness": 16,
    "staleness.final_staleness": 2,
    "staleness.publish_every": 2,
    "staleness.trainer_steps": 1,
}
"""As in configs/mnist.yaml."""

ONE_TICKET = {"training.tickets_per_step": 1}
"""The emulation, and the times that are compared, know no other."""

ASYNCHRONOUS = "k8-asynchronous"
LABELS = {
    "k40-synchronous": f"k = {MANY_STEPS}, synchronous",
    "k8-synchronous": f"k = {FEW_STEPS}, synchronous",
    ASYNCHRONOUS: f"k = {FEW_STEPS}, asynchronous",
}
"""Runs, in the order of the table."""

EMULATED_STEPS, EMULATED_WARMUP_STEPS = 200, 20


def runs(request: Request) -> list[Run]:
    """The three runs; the asynchronous one on all ranks.

    Raises:
        UserError: a change of what is asynchronous, and what is not, or of tickets per step.
    """
    require_unchanged(request, {**REFRESHED, **ONE_TICKET})
    ranges = request.ranges
    shared = {
        **ONE_TICKET,
        "training.num_steps": ranges["num_steps"],
        "evaluation.every_steps": ranges["every_steps"],
        "evaluation.num_samples": ranges["num_images"],
    }
    many, few, asynchronous = LABELS
    return [
        Run(name=many, overrides={**shared, "attack.num_steps": MANY_STEPS}, is_alone=True),
        Run(name=few, overrides={**shared, "attack.num_steps": FEW_STEPS}, is_alone=True),
        Run(
            name=asynchronous,
            overrides={**shared, "attack.num_steps": FEW_STEPS, **REFRESHED},
            ranks=num_ranks(request),
            is_alone=True,
        ),
    ]


def num_ranks(request: Request) -> int:
    """Ranks of the asynchronous run.

    Raises:
        UserError: there would be nobody to craft.
    """
    ranks = int(request.ranges["ranks"])
    if ranks == 1:
        raise UserError(
            "study.ranks=1: the asynchronous run needs a rank that crafts: use 2 or more, or 0 for "
            "as many as there are cores"
        )
    return ranks or max(2, available_cores())


def measure(folder: StudyFolder) -> list[Program]:
    """The emulation of the asynchronous run on more ranks, if it is wanted and not measured."""
    ranks, scenario = folder.ranges["emulated_ranks"], emulated(folder)
    if scenario is None or _emulated_seconds(folder, scenario):
        return []
    return [emulation(folder, scenario, ranks=ranks, repeat=0, name=f"emulated-ranks{ranks}")]


def emulated(folder: StudyFolder) -> Scenario | None:
    """Ranks as fast as those of the asynchronous run, as its log tells; None before it ended."""
    ranks, config = folder.ranges["emulated_ranks"], folder.request.config
    log = folder.log(ASYNCHRONOUS) if folder.is_done(ASYNCHRONOUS) else None
    network = folder.folder_of(ASYNCHRONOUS) / "model.pt"
    if log is None or not ranks or not network.exists():
        return None
    # To a tenth of a millisecond; the file of the network is its parameters and little more.
    train, craft = (round(float(np.median(log.column(f"{work}_seconds"))), 4) for work in _WORK)
    return Scenario(
        train_seconds=train,
        craft_seconds=craft,
        num_attack_steps=FEW_STEPS - REFRESHED["staleness.trainer_steps"],
        num_parameters=network.stat().st_size // 4,
        batch_size=config.data.batch_size,
        image_values=IMAGE_VALUES,
        max_staleness=REFRESHED["staleness.max_staleness"],
        final_staleness=REFRESHED["staleness.final_staleness"],
        publish_every=REFRESHED["staleness.publish_every"],
        outstanding=OUTSTANDING,
        warmup_steps=EMULATED_WARMUP_STEPS,
        measured_steps=EMULATED_STEPS,
        poll_seconds=POLL_SECONDS,
    ).sized_for(ranks)


_WORK = ("train", "craft")


def show(folder: StudyFolder) -> Results:
    """The table, and accuracy over time."""
    logs = {name: folder.log(name) for name in LABELS}
    begun = {name: log for name, log in logs.items() if log is not None and len(log.train)}
    target = folder.ranges["accuracy"] / 100 or common_accuracy(list(begun.values()))
    arms = [_arm(folder, name, log, target) for name, log in begun.items()]
    scenario = emulated(folder)
    seconds = _emulated_seconds(folder, scenario) if scenario else None
    if seconds:
        arms.append(_emulated_arm(arms[-1], folder.ranges["emulated_ranks"], seconds))
    return shown(arms, target, are_all=len(begun) == len(LABELS))


def step_seconds(log: Log) -> Floats:
    """Seconds of each training step, evaluations left out: float64 [rows]."""
    seconds = row_seconds(log)
    spent = dict(zip(log.evaluation["step"].tolist(), log.evaluation["seconds"], strict=True))
    # An evaluation follows the row of its step, unless the run was resumed right behind it.
    evaluating = [
        0.0 if step in log.resumes else spent.get(step, 0.0) for step in log.train["step"].tolist()
    ]
    return np.maximum(seconds - np.array(evaluating, np.float64), 0.0)


def elapsed_seconds(log: Log) -> Floats:
    """Seconds until the end of each training step: float64 [rows].

    None are known, [0], of a log that was lost and begun anew in the course of the run.
    """
    begins = log.train["step"][:1].tolist() == [0]
    return np.cumsum(step_seconds(log)) if begins else np.zeros(0)


def usual_step_seconds(log: Log) -> float:
    """Median seconds per training step, over means of blocks of steps.

    Of several ranks a quick step follows a slow one, by who crafted: only blocks are alike.
    """
    seconds = step_seconds(log)
    width = max(1, min(20, len(seconds) // 4))
    return float(np.median(in_blocks(log.train["step"], seconds, width).mean))


def common_accuracy(logs: list[Log]) -> float:
    """The highest adversarial test accuracy that all runs have reached, 0 to 1; 0: none."""
    best = [max(log.evaluation["adversarial_accuracy"], default=0.0) for log in logs]
    return float(min(best, default=0.0))


def reached(log: Log, target: float) -> Reached | None:
    """When a run first had the adversarial accuracy `target`; None where it never had."""
    elapsed = elapsed_seconds(log)
    for row in log.evaluation:
        if 0 < target <= row["adversarial_accuracy"] and 0 < row["step"] <= len(elapsed):
            step = int(row["step"])
            return Reached(num_steps=step, seconds=float(elapsed[step - 1]))
    return None


HEADLINE = Study(
    runs=runs,
    measure=measure,
    show=show,
)


def _arm(folder: StudyFolder, name: str, log: Log, target: float) -> Arm:
    elapsed = elapsed_seconds(log)
    tested = log.evaluation[(log.evaluation["step"] > 0) & (log.evaluation["step"] <= len(elapsed))]
    return Arm(
        label=LABELS[name],
        ranks=log.ranks[-1] if log.ranks else 1,
        step_seconds=usual_step_seconds(log),
        reached=reached(log, target),
        elapsed=elapsed[tested["step"] - 1],
        natural=np.asarray(tested["natural_accuracy"], np.float64),
        adversarial=np.asarray(tested["adversarial_accuracy"], np.float64),
    )


def _emulated_arm(measured: Arm, ranks: int, seconds: float) -> Arm:
    """The asynchronous run on more ranks: the same steps, as the bits are, at another speed."""
    there = measured.reached
    return replace(
        measured,
        ranks=ranks,
        is_emulated=True,
        step_seconds=seconds,
        reached=there and Reached(num_steps=there.num_steps, seconds=there.num_steps * seconds),
    )


def _emulated_seconds(folder: StudyFolder, scenario: Scenario) -> float | None:
    """Measured seconds per training step of the emulation; None where it was not measured."""
    rows = MEASUREMENTS.read(measurements_path(folder))
    wanted = key_of(scenario, folder.ranges["emulated_ranks"], 0)
    found = [
        row["ticket_seconds"] for row, key in zip(rows, keys(rows), strict=True) if key == wanted
    ]
    return float(found[0]) if found else None
