"""A trainer that follows the lead: the same steps with a team of its own, no log and no files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from mpiadv.comm.messages import Stop
from mpiadv.loops.trainer import BACKSTOP, Trainer
from mpiadv.methods.objective import Batch
from mpiadv.process.errors import (
    BrokenBitsError,
    ColleagueLostError,
    NonFiniteLossError,
    SilentRankError,
    UnreadableError,
    UserError,
    tell_warning,
)
from mpiadv.session.engine import new_colleagues, new_learner, new_trainer
from mpiadv.session.setup import Setup
from mpiadv.session.state import restore
from mpiadv.session.trainers import gather_farewells
from mpiadv.storage.checkpoint import Checkpoint

LOOK_SECONDS = 0.01


class FollowingTrainer:
    """A trainer other than the lead, from the checkpoint to the end of training.

    Raises:
        UserError: the checkpoint does not fit.
    """

    def __init__(self, setup: Setup, checkpoint: Checkpoint | None) -> None:
        self._setup = setup
        self._learner = new_learner(setup, tell_warning)
        self._attack_schedule = setup.new_attack_schedule()
        self._first_step = checkpoint.step if checkpoint else 0
        self._restored = (
            restore(self._learner, self._attack_schedule, checkpoint) if checkpoint else {}
        )

    @property
    def model(self) -> nn.Module:
        """The model being trained."""
        return self._learner.model

    def train(self, interrupted: Callable[[], bool]) -> Stop:
        """Train until all trainers end; the team has parted when this returns."""
        colleagues = new_colleagues(self._setup, self._learner)
        assert colleagues is not None
        trainer = new_trainer(
            self._setup,
            self._learner,
            self._attack_schedule,
            colleagues,
            first_step=self._first_step,
            on_step=lambda record: None,
            on_event=colleagues.tell_event,
            tell_eager=lambda text: colleagues.tell_event("eager", text),
        )
        trainer.publisher.publish_restored(self._restored)
        self._restored = {}
        trainer.publish_due()
        with self._end_left_to_the_lead(trainer):
            try:
                reason = trainer.run(interrupted)
            except UserError:
                reason = Stop.REFUSED
            except UnreadableError:
                reason = Stop.INTERRUPTED
        farewells = trainer.shut_down(reason)
        gather_farewells(self._setup, farewells, colleagues.take_events())
        return reason

    @contextmanager
    def _end_left_to_the_lead(self, trainer: Trainer[Batch]) -> Iterator[None]:
        """Of what all trainers meet the lead tells, saves what there is, and ends the job.

        Unless it is the lead that is lost.
        """
        try:
            yield
        except (BrokenBitsError, NonFiniteLossError, SilentRankError):
            self._await_the_end(trainer)
            raise
        except ColleagueLostError as error:
            if not error.is_lead:
                self._await_the_end(trainer)
            raise

    def _await_the_end(self, trainer: Trainer[Batch]) -> None:
        """Keep this team alive meanwhile; a lead that cannot save in time does not come to it."""
        patience = BACKSTOP * self._setup.config.deadline_seconds
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            trainer.pump()
            time.sleep(LOOK_SECONDS)
