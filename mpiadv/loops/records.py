"""What the trainer tells of each step, and where its batch came from. Knows no MPI and no torch."""

from dataclasses import dataclass

from mpiadv.comm.links import Delivery, Farewell
from mpiadv.loops.bench import Crafted
from mpiadv.loops.probe import Probed
from mpiadv.work.protocols import BatchT, Outcome


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a batch comes from; seconds are those of the rank that crafted it."""

    rank: int
    first_version: int
    last_version: int
    num_steps: int
    epsilon: float
    craft_seconds: float
    parameter_wait_seconds: float
    trainer_wait_seconds: float
    grant_wait_seconds: float
    gradient_magnitude: float
    natural_accuracy: float


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One training step, as the log wants it; seconds are the trainer's since its last step."""

    step: int
    ticket: int
    origin: Provenance
    outcome: Outcome
    own_craft_seconds: float
    wait_seconds: float
    train_seconds: float
    publish_seconds: float
    total_seconds: float


def crafted_here(crafted: Crafted[BatchT]) -> Provenance:
    """Where a batch comes from that the trainer crafted."""
    crafting, report = crafted.crafting, crafted.report
    assert crafting.settings is not None
    return Provenance(
        rank=0,
        first_version=crafting.first_version,
        last_version=crafting.last_version,
        num_steps=crafting.settings.num_steps,
        epsilon=crafting.settings.epsilon,
        craft_seconds=crafted.seconds,
        parameter_wait_seconds=0.0,
        trainer_wait_seconds=0.0,
        grant_wait_seconds=0.0,
        gradient_magnitude=report.gradient_magnitude,
        natural_accuracy=report.natural_accuracy,
    )


def provenance_of(delivery: Delivery) -> Provenance:
    """Where a delivered batch comes from, as its header says."""
    header = delivery.slot.header[0]
    return Provenance(
        rank=delivery.attacker,
        first_version=int(header["first_version"]),
        last_version=int(header["last_version"]),
        num_steps=int(header["num_steps"]),
        epsilon=float(header["epsilon"]),
        craft_seconds=float(header["craft_seconds"]),
        parameter_wait_seconds=float(header["parameter_wait_seconds"]),
        trainer_wait_seconds=float(header["trainer_wait_seconds"]),
        grant_wait_seconds=float(header["grant_wait_seconds"]),
        gradient_magnitude=float(header["gradient_magnitude"]),
        natural_accuracy=float(header["natural_accuracy"]),
    )


def told_in_header(delivery: Delivery) -> Probed:
    """The probe that came with a batch, or with the word that a ticket was dropped."""
    header = delivery.slot.header[0]
    return Probed(
        ticket=int(header["probe_ticket"]),
        rank=delivery.attacker,
        accuracy=float(header["probe_accuracy"]),
        loss=float(header["probe_loss"]),
        seconds=float(header["probe_seconds"]),
    )


def told_in_farewell(attacker: int, farewell: Farewell) -> Probed:
    """The probe that came with a farewell."""
    return Probed(
        ticket=farewell.probe_ticket,
        rank=attacker,
        accuracy=farewell.probe_accuracy,
        loss=farewell.probe_loss,
        seconds=farewell.probe_seconds,
    )
