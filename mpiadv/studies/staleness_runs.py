"""The runs of the staleness study: their settings, their names, what became of them. No figures.

A run stands for one of three things: staleness that is the same at all attack steps (simulated on
one rank, as in Bhat, Tsipras and Madry 2019), staleness that shrinks while the attack is crafted,
or constant staleness at another learning rate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import Any

import numpy as np

from mpiadv.report.reading import Floats, Log
from mpiadv.report.series import attacked_again, final_evaluation, mean
from mpiadv.settings import Config
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.runs import Request, Run

FEWEST_SNAPSHOTS, MOST_SNAPSHOTS = 60, 2000
"""Per run."""

DENSEST_SNAPSHOTS = 8
"""Training steps between snapshots: each costs an attack, and too little staleness never cycles."""

NUM_FRESH = 100
"""How often a run attacks the batch of a step again with its current parameters."""

HARMLESS_LOSS = 0.05
"""Staleness that costs no more adversarial accuracy than this is called harmless."""

COLLAPSED_SHARE = 0.5
"""Robustness below this share of the synchronous run's has collapsed."""

_STALE_VERSIONS = 32
"""Checkpoints hold a version of the parameters per step of staleness: from so many on, rarer."""


class State(Enum):
    """What became of a run."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    DIVERGED = "diverged"
    """Its loss became NaN or infinite."""
    MISSING = "not run"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A run and what its log tells.

    Attributes:
        natural, adversarial: accuracy on test images at the newest evaluation, 0 to 1; NaN before
            the first one, and where the run diverged.
        step: training steps done before that evaluation.
        num_images: test images of that evaluation.
    """

    run: Run
    log: Log | None
    state: State
    natural: float
    adversarial: float
    step: int
    num_images: int

    @property
    def is_judged(self) -> bool:
        """Whether there is no more to come."""
        return self.state in (State.FINISHED, State.DIVERGED)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was run.

    Attributes:
        constant: by staleness.
        refreshed: by staleness of the first attack step, then of the last; equal for constant.
        by_rate: by learning rate, then by constant staleness.
        base_rate: learning rate of `constant` and `refreshed`.
        long: the run of more steps; it is missing unless it was asked for.
    """

    constant: Mapping[int, Finding]
    refreshed: Mapping[int, Mapping[int, Finding]]
    by_rate: Mapping[float, Mapping[int, Finding]]
    base_rate: float
    long: Finding


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where robustness ends.

    Attributes:
        reference: the smallest staleness, usually 0.
        harmless: the largest staleness that, as all smaller ones, costs at most `HARMLESS_LOSS`.
        collapsed: the smallest staleness with less than `COLLAPSED_SHARE` of the reference's
            adversarial accuracy, or none because it diverged.
        unlearnt: where natural accuracy, too, is below `COLLAPSED_SHARE` of the reference's:
            the run never got off the ground, and tells nothing of robustness.
    """

    reference: int
    harmless: int | None
    collapsed: int | None
    unlearnt: tuple[int, ...]


def constant_run(config: Config, staleness: int, rate: float | None = None) -> Run:
    """Every attack step on parameters of exactly so many steps ago, on one rank."""
    num_steps = config.training.num_steps
    if rate is None or rate == config.optimizer.learning_rate:
        return Run(
            name=f"s{staleness}",
            overrides={
                **_bounds(config, staleness, staleness),
                **_fresh(num_steps),
                "log.snapshot_every": snapshot_every(num_steps, staleness),
            },
        )
    return Run(
        name=f"s{staleness}-rate{rate:g}",
        overrides={
            **_bounds(config, staleness, staleness),
            "optimizer.learning_rate": rate,
        },
    )


def refreshed_run(config: Config, largest: int, final: int) -> Run:
    """The first attack step on old parameters, the last on newer ones."""
    if final == largest:
        return constant_run(config, largest)
    return Run(name=f"max{largest}-final{final}", overrides=_bounds(config, largest, final))


def long_run(request: Request) -> Run:
    """Constant staleness for several times the steps (figure 7)."""
    config, staleness = request.config, int(request.ranges["long_staleness"])
    num_steps = int(request.ranges["long_factor"]) * config.training.num_steps
    return Run(
        name=f"s{staleness}-long",
        overrides={
            **_bounds(config, staleness, staleness),
            **_fresh(num_steps),
            "training.num_steps": num_steps,
        },
    )


def runs(request: Request) -> list[Run]:
    """All runs, each once; those of the paper first."""
    config, ranges = request.config, request.ranges
    runs = [constant_run(config, staleness) for staleness in ranges["staleness"]]
    runs += [
        refreshed_run(config, largest, final)
        for largest in ranges["max_staleness"]
        for final in _finals(ranges, largest)
    ]
    runs += [
        constant_run(config, staleness, rate)
        for rate in ranges["learning_rates"]
        for staleness in ranges["map_staleness"]
    ]
    if ranges["long"]:
        runs.append(long_run(request))
    return list({run.name: run for run in runs}.values())


def read_findings(folder: StudyFolder) -> Findings:
    """What became of the runs, by what they stand for."""
    config, ranges = folder.request.config, folder.ranges
    known: dict[str, Finding] = {}

    def finding(run: Run) -> Finding:
        if run.name not in known:
            known[run.name] = finding_of(run, folder.log(run.name))
        return known[run.name]

    rates = sorted(ranges["learning_rates"])
    return Findings(
        constant={s: finding(constant_run(config, s)) for s in sorted(ranges["staleness"])},
        refreshed={
            largest: {
                final: finding(refreshed_run(config, largest, final))
                for final in _finals(ranges, largest)
            }
            for largest in sorted(ranges["max_staleness"])
        },
        by_rate={
            rate: {
                s: finding(constant_run(config, s, rate)) for s in sorted(ranges["map_staleness"])
            }
            for rate in rates
        },
        base_rate=config.optimizer.learning_rate,
        long=finding(long_run(folder.request)),
    )


def finding_of(run: Run, log: Log | None) -> Finding:
    """What a log tells of a run."""
    state = _state(log)
    rows = final_evaluation(log) if log is not None and state is not State.DIVERGED else ()
    for row in rows:
        return Finding(
            run=run,
            log=log,
            state=state,
            natural=float(row["natural_accuracy"]),
            adversarial=float(row["adversarial_accuracy"]),
            step=int(row["step"]),
            num_images=int(row["num_samples"]),
        )
    nothing = float("nan")
    return Finding(
        run=run, log=log, state=state, natural=nothing, adversarial=nothing, step=0, num_images=0
    )


def limits(constant: Mapping[int, Finding]) -> Limits | None:
    """Where robustness ends; None as long as the smallest staleness has none."""
    judged = {s: finding for s, finding in sorted(constant.items()) if finding.is_judged}
    reference = min(constant, default=None)
    # Not "at most 0": NaN where it diverged.
    if reference not in judged or not judged[reference].adversarial > 0:
        return None
    full = judged[reference]
    unlearnt = [s for s, o in judged.items() if o.natural < COLLAPSED_SHARE * full.natural]
    learnt = {s: finding for s, finding in judged.items() if s not in unlearnt}
    enough = COLLAPSED_SHARE * full.adversarial
    # Not "below": the accuracy of a diverged run is NaN.
    collapsed = next((s for s, o in learnt.items() if not o.adversarial >= enough), None)
    least = max(enough, full.adversarial - HARMLESS_LOSS)
    harmless = list(takewhile(lambda s: learnt[s].adversarial >= least, learnt))
    return Limits(
        reference=reference,
        harmless=max(harmless[1:], default=None),
        collapsed=collapsed,
        unlearnt=tuple(unlearnt),
    )


def is_of_the_papers_data(findings: Iterable[Finding]) -> bool:
    """Whether runs, those that have begun, may be set beside the paper's."""
    logs = [finding.log for finding in findings if finding.log is not None]
    return all(log.config.get("data.name") == "mnist" for log in logs)


def most_telling(constant: Mapping[int, Finding]) -> list[int]:
    """The smallest staleness, the largest harmless one, and the first that collapses or the last.

    Only such as have trained at all.
    """
    begun = [s for s, finding in sorted(constant.items()) if _has_trained(finding)]
    found = limits(constant)
    if not begun or found is None:
        return sorted({*begun[:1], *begun[-1:]})
    last = begun[-1] if found.collapsed is None else found.collapsed
    return [s for s in begun if s in (found.reference, found.harmless, last)]


def stale_accuracy(log: Log) -> float:
    """Accuracy on the batches as they were trained on, mean over the last tenth of the steps."""
    return mean(log.column("accuracy")[-max(1, log.num_steps // 10) :])


def fresh_accuracy(log: Log) -> float:
    """Accuracy on the same batches attacked with current parameters, over the same steps."""
    steps, accuracies = fresh_curve(log)
    return mean(accuracies[steps >= log.num_steps - max(1, log.num_steps // 10)])


def fresh_curve(log: Log) -> tuple[Floats, Floats]:
    """Steps, and accuracy on batches attacked with the parameters of that step: float64 [F]."""
    _, fresh = attacked_again(log)
    return np.asarray(fresh["step"], np.float64), np.asarray(fresh["accuracy"], np.float64)


def _bounds(config: Config, largest: int, final: int) -> dict[str, Any]:
    every = config.checkpoint.every_steps * (1 + largest // _STALE_VERSIONS)
    return {
        "staleness.max_staleness": largest,
        "staleness.final_staleness": final,
        "staleness.publish_every": 1,  # admits every final staleness
        "checkpoint.every_steps": every,
    }


def _fresh(num_steps: int) -> dict[str, Any]:
    return {"log.fresh_every": max(1, num_steps // NUM_FRESH)}


def snapshot_every(num_steps: int, staleness: int) -> int:
    """Training steps between snapshots: half the staleness, as cycles take about four of it."""
    rarest = max(1, num_steps // FEWEST_SNAPSHOTS)
    wanted = max(DENSEST_SNAPSHOTS, num_steps // MOST_SNAPSHOTS, staleness // 2)
    return min(rarest, wanted) if staleness else rarest


def _finals(ranges: Mapping[str, Any], largest: int) -> list[int]:
    return sorted({final for final in ranges["final_staleness"] if final < largest} | {largest})


def _state(log: Log | None) -> State:
    if log is None:
        return State.MISSING
    if log.condition == "finished":
        return State.FINISHED
    return State.DIVERGED if len(log.events_of("diverged")) else State.UNFINISHED


def _has_trained(finding: Finding) -> bool:
    return finding.log is not None and len(finding.log.train) > 0
