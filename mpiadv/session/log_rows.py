"""What the trainer did as rows of the log. Knows no torch, as emulated trainers log, too."""

import time

from mpiadv.loops.records import StepRecord
from mpiadv.runlog import TrainRow


def train_row(record: StepRecord) -> TrainRow:
    """A training step as a row of the log."""
    origin, outcome = record.origin, record.outcome
    return TrainRow(
        step=record.step,
        ticket=record.ticket,
        first_version=origin.first_version,
        last_version=origin.last_version,
        first_staleness=record.ticket - origin.first_version,
        last_staleness=record.ticket - origin.last_version,
        rank=origin.rank,
        attack_steps=origin.num_steps,
        epsilon=origin.epsilon,
        learning_rate=outcome.learning_rate,
        loss=outcome.loss,
        accuracy=outcome.accuracy,
        natural_accuracy=origin.natural_accuracy,
        gradient_magnitude=origin.gradient_magnitude,
        craft_seconds=origin.craft_seconds,
        parameter_wait_seconds=origin.parameter_wait_seconds,
        trainer_wait_seconds=origin.trainer_wait_seconds,
        grant_wait_seconds=origin.grant_wait_seconds,
        own_craft_seconds=record.own_craft_seconds,
        wait_seconds=record.wait_seconds,
        train_seconds=record.train_seconds,
        publish_seconds=record.publish_seconds,
        wall_clock=time.time(),
    )
