"""What is told of a ticket, of the rank that crafted it and of the training step that consumed it.

Messages, their headers and the log's tables are made from these fields: what is added here
travels, and is a column of the log where it has a unit. Knows no message and no file.
"""

from dataclasses import dataclass
from math import nan

from mpiadv.contract.columns import column
from mpiadv.contract.tickets import AttackSettings


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a batch comes from."""

    ticket: int = column("i8", "number of the adversarial batch")
    first_version: int = column(
        "i8",
        "training steps behind the first attack step's parameters; the own one if none is crafted",
    )
    last_version: int = column(
        "i8", "training steps behind those of the last one that was crafted; the own if none was"
    )
    first_staleness: int = column("i4", "training steps: step - first_version", init=False)
    last_staleness: int = column("i4", "training steps: step - last_version", init=False)
    rank: int = column("i4", "rank that crafted the batch")
    settings: AttackSettings
    step: int
    """The training step that consumes it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "first_staleness", self.step - self.first_version)
        object.__setattr__(self, "last_staleness", self.step - self.last_version)


@dataclass(frozen=True, kw_only=True)
class CraftReport:
    """What crafting a ticket told."""

    natural_accuracy: float = column("f8", "natural accuracy on the batch, 0 to 1; NaN: not taken")
    gradient_magnitude: float = column(
        "f8",
        "L1 norm of the loss gradient by the pixels at the last attack step, mean of samples; "
        "where the attack schedule asks for it and there are no attack steps, that of training",
    )


@dataclass(frozen=True, kw_only=True)
class RankSeconds:
    """Where the time of a crafting rank went, for a ticket or in all."""

    craft_seconds: float = column("f8", "seconds: crafting")
    parameter_wait_seconds: float = column(
        "f8", "seconds: crafting rank waiting for parameters on their way"
    )
    trainer_wait_seconds: float = column(
        "f8", "seconds: crafting rank waiting for parameters that the trainer had yet to reach"
    )
    grant_wait_seconds: float = column("f8", "seconds: crafting rank without a ticket")


@dataclass(frozen=True, kw_only=True)
class RankWork:
    """What a crafting rank did between a start, or resume, of the run and its end."""

    rank: int = column("i4", "the crafting rank")
    host: str = column("S64", "its host")
    tickets: int = column("i8", "batches crafted")
    seconds: RankSeconds


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A step's first batch attacked again, all of the attack on the parameters of the step itself.

    There is none for a batch that came due while its rank was busy with another, or was lost.
    """

    step: int = column("i8", "training steps done before the one that trains on the batch")
    rank: int = column("i4", "rank that measured")
    accuracy: float = column(
        "f8",
        "accuracy on the batch's adversarial images attacked anew, 0 to 1; accuracy of /train at "
        "this step is on the same images as they were crafted",
    )
    loss: float = column(
        "f8",
        "cross-entropy, mean over the batch's adversarial images attacked anew; compares with loss "
        "of /train where no part of the batch stays natural",
    )
    seconds: float = column("f8", "seconds: attack and measurement")


NOTHING = Probed(step=-1, rank=0, accuracy=nan, loss=nan, seconds=0.0)
"""No probe."""


@dataclass(frozen=True, kw_only=True)
class TicketTold:
    """What training on a ticket told, as the `Outcome` of its step, which is the mean of these."""

    loss: float
    accuracy: float
    gradient_magnitude: float | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training step told of the batch before the update.

    `gradient_magnitude`: as in `CraftReport`, of the trainer's own last attack step, or of the
    training step where it was asked for and there is no attack; None where neither was.
    """

    learning_rate: float = column("f8", "learning rate of this step")
    loss: float = column("f8", "training objective, mean over the batch")
    accuracy: float = column("f8", "accuracy on the batch's adversarial images, 0 to 1")
    gradient_magnitude: float | None = None


@dataclass(frozen=True, kw_only=True)
class TicketRecord:
    """One of the tickets of a training step."""

    step: int = column("i8", "training steps done before the one that trains on the batch")
    origin: Provenance
    report: CraftReport
    seconds: RankSeconds


@dataclass(frozen=True, kw_only=True)
class TrainerSeconds:
    """Of a trainer since its last step: how long it was idle, and how long it took."""

    rank: int
    wait_seconds: float
    total_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A training step; seconds of the trainer count from its last step on.

    Of several tickets, `origin` and `seconds` are those of the first, with the oldest versions of
    any, `report` the mean.
    """

    step: int = column("i8", "training steps done before this one")
    origin: Provenance
    outcome: Outcome
    report: CraftReport
    seconds: RankSeconds
    own_craft_seconds: float = column("f8", "seconds: trainer crafting since the last step")
    wait_seconds: float = column("f8", "seconds: trainer idle since the last step")
    train_seconds: float = column("f8", "seconds: training step")
    publish_seconds: float = column("f8", "seconds: publishing of parameters")
    exchange_seconds: float = column(
        "f8",
        "seconds: trainer idle until what all trainers' tickets come to is there; 0 where it is "
        "alone",
    )
    wall_clock: float = column("f8", "seconds since 1970-01-01 UTC, at the end of the step")
    total_seconds: float
    tickets: tuple[TicketRecord, ...] = ()
    """Each of its tickets."""
    others: tuple[TrainerSeconds, ...] = ()
    """Of the other trainers, the step before."""
