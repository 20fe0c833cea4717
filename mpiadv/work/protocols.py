"""What the loops ask of the work itself: crafting and learning. Knows no MPI and no torch.

The real work is in `craft` and `learn`; benchmarks put calibrated waits in its place.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.comm.messages import Bytes
from mpiadv.comm.sums import IsReady
from mpiadv.contract.accounts import CraftReport, TicketTold
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings

BatchT = TypeVar("BatchT")
"""A batch on the device of the rank, whatever the work takes for one."""


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """Accuracy, 0 to 1, and mean cross-entropy on a batch's adversarial images, attacked anew.

    By the model as it is when it trains on the batch, so that they compare with `Outcome`.
    """

    accuracy: float
    loss: float


class Work(Protocol):
    """Something that a device may still be busy with after the call has returned."""

    def busy(self) -> bool:
        """Whether the device still works; the caller moves messages on meanwhile."""


class Crafter(Work, Protocol[BatchT]):
    """Crafts batches, one attack step at a time, several tickets in turn."""

    def prefetch(self, ticket: int) -> None:
        """Begin to fetch the natural images."""

    def wait(self, ticket: int) -> bool:
        """Wait a moment for the natural images; whether `start` need not wait for them."""

    def start(self, ticket: int, settings: AttackSettings) -> None:
        """Take the natural images and the random start.

        Raises:
            UserError: the images are not what they should be.
            UnreadableError: they could not be read for a while.
        """

    def run(self, step: AttackStep, parameters: ParameterSlot) -> None:
        """Run one attack step on the given parameters."""

    def finish(self, ticket: int) -> tuple[BatchT, CraftReport]:
        """Hand over the batch and forget the ticket."""

    def drop(self, ticket: int) -> None:
        """Forget the ticket, begun or not."""

    def probe(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        """Attack the ticket's batch on these parameters alone, beside whatever else is crafted.

        Yields None after each attack step, with the device perhaps busy still, the report last.
        The parameters are read until then.
        """

    def download(self, batch: BatchT, slot: BatchSlot) -> None:
        """Copy a batch into a message; complete when it returns."""


class Summing(Protocol):
    """What a trainer's tickets of a step come to, for the other trainers."""

    def told(self) -> list[TicketTold]:
        """Of this trainer's tickets of the step, when no longer busy."""

    @property
    def sum_bytes(self) -> int:
        """The size of what its tickets of a step come to: whole blocks of 64 bytes."""

    def give_sum(self, values: Bytes) -> IsReady:
        """Begin to write it into `values`, to be added to that of the other trainers."""

    def add_sum(self, values: Bytes, start: int, theirs: Bytes) -> None:
        """Add to `values`, from `start` on, what came of another trainer."""

    def fingerprint(self) -> int:
        """What tells the model from another, not below 0."""


class Learner(Work, Summing, Protocol[BatchT]):
    """Owns the parameters and trains them."""

    @property
    def leaves_host_free(self) -> bool:
        """Whether a device trains while its host moves messages on."""

    def snapshot(self, values: Bytes) -> Callable[[], bool]:
        """Begin to copy the parameters into `values`; the result says whether it is complete.

        Training may go on at once: the copy is of this moment.
        """

    def upload(self, slot: BatchSlot) -> BatchT:
        """The batch in a received message, on this rank's device; the slot is free afterwards."""

    def train(
        self, ticket: int, batch: BatchT, settings: AttackSettings, pump: Callable[[], None]
    ) -> None:
        """Run the trainer's own attack steps, if any, `pump` after each, and take the gradient.

        It is added to those of the earlier tickets of the step.
        """

    def complete(self, values: Bytes | None = None) -> float:
        """Complete the training step; returns the learning rate.

        `values`: the sum of all trainers; None where this one is alone.
        """
