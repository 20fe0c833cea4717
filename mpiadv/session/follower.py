"""A trainer that follows the lead: the same steps with a team of its own, no log and no files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from mpiadv.comm.messages import Stop
from mpiadv.process.errors import (
    BrokenBitsError,
    ColleagueLostError,
    NonFiniteLossError,
    UnreadableError,
    UserError,
    tell_warning,
)
from mpiadv.session.engine import new_colleagues, new_learner, new_trainer
from mpiadv.session.setup import Setup
from mpiadv.session.state import restore
from mpiadv.session.together import gather_farewells
from mpiadv.storage.checkpoint import Checkpoint

_LONGEST_WAIT_SECONDS = 60.0
"""For the lead to end the job, which saves what there is before."""


class Follower:
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
        with _leaving_the_end_to_the_lead():
            try:
                reason = trainer.run(interrupted)
            except UserError:
                reason = Stop.REFUSED
            except UnreadableError:
                reason = Stop.INTERRUPTED
        gather_farewells(self._setup, trainer.shut_down(reason))
        return reason


@contextmanager
def _leaving_the_end_to_the_lead() -> Iterator[None]:
    """Of what all trainers meet the lead tells, and ends the job; unless it is what is lost."""
    try:
        yield
    except (BrokenBitsError, NonFiniteLossError):
        time.sleep(_LONGEST_WAIT_SECONDS)
        raise
    except ColleagueLostError as error:
        if not error.is_lead:
            time.sleep(_LONGEST_WAIT_SECONDS)
        raise
