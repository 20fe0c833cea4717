"""What the loops ask of the work itself: crafting and learning. Knows no MPI and no torch.

The real work is in `craft` and `learn`; benchmarks put calibrated waits in its place.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.comm.messages import Bytes
from mpiadv.contract.accounts import CraftReport, Outcome
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


class Learner(Work, Protocol[BatchT]):
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
        """Run the trainer's own attack steps, if any, `pump` after each, and train on the batch.

        The last ticket of a training step completes it.
        """

    def outcome(self) -> Outcome:
        """Of the training step that is complete; asked for when no longer busy."""
