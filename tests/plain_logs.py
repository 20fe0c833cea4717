"""Logs of made-up rows, for tests of the log itself."""

from pathlib import Path
from typing import Any

import numpy as np
from made_records import made

from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.runlog import AttackerRow, EvaluationRow, RunLog
from mpiadv.runlog.rows import Rows, layout_of


def train_row(step: int) -> StepRecord:
    """A row that tells its step in its last column too, so that a torn one shows."""
    return made(
        StepRecord,
        step=step, ticket=step, first_version=0, last_version=0,
        rank=1, attack_steps=8, epsilon=0.3, learning_rate=1e-3, loss=2.3,
        accuracy=0.5, natural_accuracy=0.75, gradient_magnitude=1.0, craft_seconds=0.1,
        parameter_wait_seconds=0.0, trainer_wait_seconds=0.0, grant_wait_seconds=0.0,
        own_craft_seconds=0.0, wait_seconds=0.0, train_seconds=0.1, publish_seconds=0.0,
        exchange_seconds=0.0,
        wall_clock=step + 1.0,
    )  # fmt: skip


def evaluation_row(step: int) -> EvaluationRow:
    return EvaluationRow(
        step=step, attack="pgd", num_samples=500, natural_accuracy=0.9, adversarial_accuracy=0.5,
        natural_loss=0.1, adversarial_loss=1.0, seconds=2.0, weights="raw",
    )  # fmt: skip


def fresh_row(step: int) -> Probed:
    return Probed(step=step, rank=2, accuracy=0.25, loss=1.5, seconds=0.5)


def attacker_row(step: int) -> AttackerRow:
    return made(
        AttackerRow,
        step=step, rank=1, host="node1", tickets=step, craft_seconds=1.0,
        parameter_wait_seconds=0.0, trainer_wait_seconds=0.0, grant_wait_seconds=0.0,
    )  # fmt: skip


def write_steps(log: RunLog, first: int, stop: int) -> None:
    for step in range(first, stop):
        log.train(train_row(step))


def train_rows(first: int, stop: int) -> Rows:
    layout = layout_of(StepRecord, 1)
    return np.array([layout.as_tuple(train_row(step)) for step in range(first, stop)], layout.dtype)


def begin(path: Path, **options: Any) -> RunLog:
    return RunLog.create(path, attributes={"config": "a: 1\n", "seed": 3}, **options)


def resume(path: Path, step: int | None, **options: Any) -> RunLog:
    return RunLog.resume(path, step=step, **{"num_steps": 10000, "attributes": {}, **options})
