"""The trainer's rank from its folder to the end of training: checkpoint, log, training."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mpiadv.comm.homes import copies_told
from mpiadv.comm.messages import Stop
from mpiadv.loops.publisher import Published
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.objective import Batch
from mpiadv.process.errors import (
    BrokenBitsError,
    ColleagueLostError,
    NonFiniteLossError,
    OverfittingError,
    SampleError,
    SilentRankError,
    UnreadableError,
    UserError,
    tell_error,
)
from mpiadv.session.desk import Desk, open_log, resumed_from, set_damaged_aside
from mpiadv.session.display import Display
from mpiadv.session.ending import Ending, Evaluate
from mpiadv.session.engine import new_colleagues, new_learner, new_trainer
from mpiadv.session.guard import Guard
from mpiadv.session.kept_weights import KeptWeights
from mpiadv.session.opening import opening_lines
from mpiadv.session.recorder import Recorder
from mpiadv.session.safekeeping import Safekeeping
from mpiadv.session.same_run import differences, require_same_data, require_same_sources
from mpiadv.session.setup import Setup
from mpiadv.session.state import Watchers, restore
from mpiadv.session.trainers import gather_farewells
from mpiadv.storage.checkpoint import Checkpoint


class Lead:
    """The trainer's rank: builds the learner and what watches it, trains, and reports.

    Use as a context manager: leaving it flushes the log and frees the folder, whatever happened.
    """

    def __init__(self, setup: Setup, desk: Desk) -> None:
        self._setup = setup
        self._desk = desk
        self._stack = ExitStack()
        self._stack.callback(desk.folder.close)
        self._fault: UnreadableError | UserError | None = None
        self._learner = new_learner(setup, self._tell_eager)
        self._attack_schedule = setup.new_attack_schedule()
        self._changes: list[str] = []
        self._restored: dict[int, Published] = {}
        best, guard = KeptWeights(), Guard(config=setup.config.guard)
        if checkpoint := desk.checkpoint:
            self._changes = require_same_data(setup.config, checkpoint, setup.fingerprints)
            require_same_sources(checkpoint, setup.sources)
            watchers: Watchers = {"best": best, "guard": guard}
            self._restored = restore(self._learner, self._attack_schedule, checkpoint, watchers)
        self._log, told = open_log(setup, desk)
        if checkpoint is not None:
            for change in differences(checkpoint, setup.numerics):
                self._log.event("changed", change, desk.first_step)
        self._notes = [*set_damaged_aside(desk), *resumed_from(desk), *told]
        self._display = Display(
            first_step=desk.first_step, num_steps=setup.config.training.num_steps
        )
        self._safekeeping = Safekeeping(
            log=self._log,
            folder=desk.folder,
            keep=setup.config.checkpoint.keep,
            say=self._display.say,
            deadline_seconds=setup.config.deadline_seconds,
            saved_step=desk.first_step if desk.checkpoint else -1,
        )
        self._stack.callback(self._safekeeping.close)
        self._recorder = Recorder(
            setup=setup,
            log=self._log,
            safekeeping=self._safekeeping,
            display=self._display,
            learner=self._learner,
            best=best,
            guard=guard,
        )

    def __enter__(self) -> "Lead":
        return self

    def __exit__(self, *error: object) -> None:
        self._display.close()
        self._stack.close()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What the run goes on from."""
        return self._desk.checkpoint

    def train(self, interrupted: Callable[[], bool]) -> Stop:
        """Train to the end or to an interruption; all ranks have parted when this returns."""
        for line in opening_lines(self._setup, self._desk.checkpoint, self._changes, self._notes):
            self._display.say(line)
        trainer = self._recorder.trainer = self._new_trainer()
        began = time.perf_counter()
        trainer.publisher.publish_restored(self._restored)
        self._restored = {}
        trainer.publish_due()
        with self._failures_recorded(trainer):
            reason = self._run(trainer, interrupted)
            self._save_at_end(trainer, reason)
            self._farewells = gather_farewells(
                self._setup, trainer.shut_down(reason), on_event=self._recorder.on_event
            )
        step = trainer.dispatcher.step
        self._recorder.log_farewells(step, self._farewells)
        self._train_seconds = time.perf_counter() - began
        self._display.close()
        if self._fault:
            saved = f"checkpoint of step {step} saved" if step else "nothing was trained"
            changed = " data.allow_changes=true" * isinstance(self._fault, SampleError)
            tell_error(f"{self._fault}: {saved}, go on with --resume{changed}")
        elif reason is Stop.INTERRUPTED:
            self._display.say(f"interrupted at step {step}, checkpoint saved: go on with --resume")
        return reason

    def _run(self, trainer: Trainer[Batch], interrupted: Callable[[], bool]) -> Stop:
        """Train; samples, or code of the user's, that are at fault end the run in order."""
        try:
            return trainer.run(interrupted)
        except (UnreadableError, UserError) as error:
            self._fault = error
            return Stop.REFUSED if isinstance(error, UserError) else Stop.INTERRUPTED

    def finish(self, evaluate: Evaluate, before_done: Callable[[], None]) -> None:
        Ending(
            setup=self._setup,
            desk=self._desk,
            recorder=self._recorder,
            farewells=self._farewells,
            train_seconds=self._train_seconds,
        ).finish(evaluate, before_done)

    @contextmanager
    def _failures_recorded(self, trainer: Trainer[Batch]) -> Iterator[None]:
        """Log what ends the training; where it could go on elsewhere, save it first."""
        try:
            yield
        except NonFiniteLossError as error:
            self._recorder.on_event("diverged", str(error))
            raise
        except OverfittingError as error:
            self._recorder.on_event("overfitted", str(error))
            raise
        except BrokenBitsError as error:
            self._recorder.on_event("broken bits", str(error))
            raise
        except (SilentRankError, ColleagueLostError) as error:
            step = trainer.dispatcher.step
            kind = "silent" if isinstance(error, SilentRankError) else "trainer lost"
            self._recorder.on_event(kind, str(error))
            self._recorder.save_last(step)
            self._safekeeping.require_saved(step, trainer.pump)
            raise

    def _save_at_end(self, trainer: Trainer[Batch], reason: Stop) -> None:
        step = trainer.dispatcher.step
        is_early = reason is not Stop.FINISHED
        if self._fault:
            is_of_samples = isinstance(self._fault, SampleError | UnreadableError)
            kind = "bad samples" if is_of_samples else "failed"
            self._recorder.on_event(kind, str(self._fault))
            if step == 0:
                return
        if is_early or self._setup.config.checkpoint.every_steps:
            # Parting and the evaluation may fail yet: the training is not to be done again then.
            self._recorder.save_last(step)
        if is_early:
            self._safekeeping.require_saved(step, trainer.pump)
            self._recorder.on_event("interrupted", f"checkpoint of step {step}")

    def _tell_eager(self, text: str) -> None:
        self._recorder.on_event("eager", text)

    def _new_trainer(self) -> Trainer[Batch]:
        colleagues = new_colleagues(self._setup, self._learner, self._recorder.on_event)
        return new_trainer(
            self._setup,
            self._learner,
            self._attack_schedule,
            colleagues,
            first_step=self._desk.first_step,
            on_step=self._recorder.on_step,
            on_event=self._recorder.on_event,
            tell_eager=self._tell_eager,
            on_groups=self._tell_groups,
            on_probe=self._log.fresh,
        )

    def _tell_groups(self, groups: Sequence[Sequence[int]]) -> None:
        copies = copies_told(groups, self._setup.world.roster.hosts)
        self._log.event("sharing", copies, self._desk.first_step)
