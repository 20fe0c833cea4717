"""Logs of made-up runs, and how to bring them into every condition a real one can be in."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from made_records import made

from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.runlog import EvaluationRow, RunLog
from mpiadv.settings import dump_config, parse_config

BEGAN = 1_700_000_000.0
"""When the made-up runs began, seconds since 1970."""
STEP_SECONDS = 0.5
SHAPE = (2, 1, 6, 6)
NUM_STEPS = 60


def train_row(step: int, *, num_ranks: int = 3, began: float = BEGAN, **changed: Any) -> StepRecord:
    """A step of half a second: training 0.1, crafting 0.2, waiting 0.15, publishing 0.01."""
    first = min(step, 15 + step % 2)
    row = dict(
        step=step, ticket=step, first_version=step - first, last_version=step - min(step, step % 3),
        rank=step % num_ranks,
        attack_steps=8, epsilon=0.3, learning_rate=1e-3, loss=2.3 / (1 + 0.05 * step),
        accuracy=step / (step + 20), natural_accuracy=0.9 if step % 10 == 0 else float("nan"),
        gradient_magnitude=5.0 + step % 7, craft_seconds=0.6, parameter_wait_seconds=0.1,
        trainer_wait_seconds=0.2, grant_wait_seconds=0.1, own_craft_seconds=0.2,
        wait_seconds=0.15, train_seconds=0.1, publish_seconds=0.01, exchange_seconds=0.0,
        wall_clock=began + (step + 1) * STEP_SECONDS,
    )  # fmt: skip
    return made(StepRecord, **row | changed)


def evaluation_row(step: int, weights: str = "raw") -> EvaluationRow:
    return EvaluationRow(
        step=step, attack="PGD-40", num_samples=500, natural_accuracy=0.96,
        adversarial_accuracy=0.5 + step / 200, natural_loss=0.1, adversarial_loss=1.0, seconds=2.0,
        weights=weights,
    )  # fmt: skip


def fresh_row(step: int) -> Probed:
    """Half as accurate as the batch was when it was crafted."""
    return Probed(
        step=step,
        rank=1 + step // 4 % 2,
        accuracy=0.5 * step / (step + 20),
        loss=2.3,
        seconds=0.6,
    )


def attributes(**settings: Any) -> dict[str, str | int | float]:
    """What a run writes into its log; `settings` are sections of the configuration."""
    tree = {"training": {"num_steps": NUM_STEPS}, **settings}
    return {
        "config": dump_config(parse_config(tree)),
        "seed": 0, "ranks": 3, "hosts": "node1,node2,node2", "device": "cpu", "threads": 1,
        "version_torch": "2.15.0",
    }  # fmt: skip


def begin(folder: Path, **settings: Any) -> RunLog:
    """The log of a run that begins in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return RunLog.create(
        folder / "log.h5",
        attributes=attributes(**settings),
        snapshot_shape=SHAPE,
        clock=lambda: BEGAN,
    )


def write_steps(
    log: RunLog, first: int, stop: int, *, snapshots: bool = True, **options: Any
) -> None:
    """Steps, an evaluation every 20 of them, a snapshot every 10, a batch attacked anew every 4."""
    random = np.random.default_rng(0)
    originals = random.random(SHAPE, dtype=np.float32)
    for step in range(first, stop):
        log.train(train_row(step, **options))
        if step % 4 == 0:
            log.fresh(fresh_row(step))
        done = step + 1
        if done % 20 == 0:
            log.evaluation(evaluation_row(done))
        if done % 10 == 0 and snapshots:
            change = random.uniform(-0.3, 0.3, SHAPE).astype(np.float32)
            log.snapshot(done, np.clip(originals + change, 0, 1), originals=originals)


def finished_run(folder: Path, **settings: Any) -> Path:
    """A finished run's folder."""
    with begin(folder, **settings) as log:
        log.event("sharing", "one copy on each of 2 hosts", 0)
        write_steps(log, 0, NUM_STEPS)
        log.event("end", "hash 0123abcd", NUM_STEPS)
    (folder / "lock").write_text("")
    (folder / "DONE").write_text("natural accuracy 96 %\n")
    return folder


def resumed_run(folder: Path) -> Path:
    """A run interrupted after 25 steps and resumed an hour later, by 2 ranks; it still runs."""
    with begin(folder) as log:
        write_steps(log, 0, 25)
        log.event("interrupted", "checkpoint of step 25", 25)
    later = BEGAN + 3600
    with RunLog.resume(
        folder / "log.h5", step=25, num_steps=40, attributes={"ranks": 2}, clock=lambda: later
    ) as log:
        write_steps(log, 25, 40, num_ranks=2, began=later - 25 * STEP_SECONDS)
    sign(folder, os.getpid())
    return folder


def begun_run(folder: Path, num_steps: int = 30) -> Path:
    """A run that is neither finished nor locked."""
    with begin(folder) as log:
        write_steps(log, 0, num_steps)
    return folder


def sign(folder: Path, process: int, host: str | None = None) -> None:
    """Write into the lock file what a run does."""
    (folder / "lock").write_text(f"process {process} on host {host or socket.gethostname()}\n")


def gone_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid
