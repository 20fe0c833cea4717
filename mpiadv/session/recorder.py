"""What happens beside training: log rows, evaluations, snapshots, checkpoints, display."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from mpiadv.comm.messages import Farewell
from mpiadv.contract.accounts import StepRecord
from mpiadv.contract.tickets import choose_samples
from mpiadv.data import Source
from mpiadv.evaluation import Counts, attack_images, evaluate
from mpiadv.evaluation.in_run import Measurement, evaluation_attack, measurements
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.objective import Batch
from mpiadv.process.errors import OverfittingError
from mpiadv.runlog import AttackerRow, EvaluationRow, RunLog
from mpiadv.runlog.rows import HELD_OUT, TEST, TRAIN
from mpiadv.session.branches import branch_text, judged
from mpiadv.session.display import Display
from mpiadv.session.guard import CURES, FALLEN, Guard
from mpiadv.session.kept_weights import KeptWeights
from mpiadv.session.safekeeping import Safekeeping, Snapshot, reason_of
from mpiadv.session.setup import Setup
from mpiadv.session.speed_report import SpeedBook
from mpiadv.session.state import Watchers, training_state
from mpiadv.settings import Config
from mpiadv.storage.checkpoint import save_model
from mpiadv.storage.run_folder import BEST, GOOD, RAW
from mpiadv.work.host_copies import HostCopies
from mpiadv.work.learn import TorchLearner


@dataclass(kw_only=True)
class Recorder:
    """Watches the trainer through `on_step` and `on_event`; `trainer` is set once it exists."""

    setup: Setup
    log: RunLog
    safekeeping: Safekeeping
    display: Display
    learner: TorchLearner
    best: KeptWeights
    guard: Guard
    trainer: Trainer[Batch] = field(init=False)
    speed: SpeedBook = field(default_factory=SpeedBook)
    _copies: HostCopies = field(default_factory=HostCopies)

    @property
    def config(self) -> Config:
        return self.setup.config

    def on_step(self, record: StepRecord) -> None:
        """Log a training step and do what is due after it."""
        self.log.train(record)
        self.speed.add(record)
        self.safekeeping.after_step(record.step + 1)
        self.display.step(record)
        done, config = record.step + 1, self.config
        is_last = done == config.training.num_steps  # it has its own evaluation and checkpoint
        if not is_last and _is_due(done, config.evaluation.every_steps):
            self.evaluate(done)
        elif is_last:
            self.choose_best(done)
        if _is_due(done, config.guard.every_steps):
            self.guard_training(done)
        if _is_due(done, config.log.snapshot_every):
            self.take_snapshot(done)
        if not is_last and _is_due(done, config.checkpoint.every_steps):
            self.save(done)

    def on_event(self, kind: str, text: str) -> None:
        """Log what is out of the ordinary; people are told at once what concerns a rank."""
        step = self.trainer.dispatcher.step
        self.log.event(kind, text, step)
        if kind in ("late", "lost", "unread", "slow images", "eager", "overfitting"):
            self.display.say(f"warning: step {step}: {text}")

    def evaluate(self, step: int) -> None:
        """Measure test accuracy during the run, of the weights as they are and of their average."""
        for weights, model in self.learner.step.models.items():
            self._measure(step, TEST, weights, model)
        self.choose_best(step)

    def choose_best(self, step: int) -> None:
        """Keep the weights that withstand most on images held out, if there are any."""
        if self.setup.data.held_out is None:
            return
        measure = self._measurements[HELD_OUT].told
        if self.best.forget_other(measure):
            self.on_event("best forgotten", f"evaluated otherwise from here on: {measure}")
        accuracy = self.best.accuracy
        for weights, model in self.learner.step.models.items():
            counts = self._measure(step, HELD_OUT, weights, model)
            if counts.adversarial_accuracy > self.best.accuracy:
                self.best.keep(step, weights, model, counts.adversarial_accuracy, measure)
        if self.best.accuracy > accuracy:
            self._save_kept(BEST, self.best)

    def guard_training(self, step: int) -> None:
        """Measure whether training images still withstand PGD.

        Raises:
            OverfittingError: they suddenly do not, and the run is to stop then.
        """
        model = self.learner.model
        counts = self._measure(step, TRAIN, RAW, model)
        told = self.guard.judge(
            step, model, counts.adversarial_accuracy, self._measurements[TRAIN].told
        )
        if not self.guard.must_stop:
            if told:
                self.on_event("overfitting", f"{told}: {CURES}")
            return
        good, path = self.guard.good, self.safekeeping.folder.model(GOOD)
        is_saved = bool(good.state) and self._save_kept(GOOD, good)
        where = f"the weights of step {good.step}, before it, are {path}: " if is_saved else ""
        raise OverfittingError(f"step {step}: {told or FALLEN}: {where}{CURES}")

    def _save_kept(self, weights: str, kept: KeptWeights) -> bool:
        """Write weights that were kept to their file; whether the disk took them, else it tells."""
        folder = self.safekeeping.folder
        path = folder.model(weights)
        try:
            folder.lock.require_held()
            save_model(path, kept.state["model"])
        except OSError as error:
            text = f"{path} could not be written ({reason_of(error)})"
            self.log.event(f"{weights} failed", text, kept.step)
            self.display.say(f"warning: {text}")
            return False
        return True

    def _measure(self, step: int, images: str, weights: str, model: nn.Module) -> Counts:
        """Measure, log and tell natural and adversarial accuracy."""
        began = time.perf_counter()
        data, measurement = self.setup.data, self._measurements[images]
        source = {TEST: data.test, HELD_OUT: data.held_out, TRAIN: data.train}[images]
        assert source is not None
        (counts,) = evaluate(
            [judged(self.config, model, weights)],
            source,
            measurement.attack,
            seed=self.config.seed,
            num_samples=measurement.num_samples,
            batch_size=self.config.evaluation.batch_size,
            precision=self.config.evaluation.precision,
            between_steps=self.trainer.pump,
        )
        self.log_evaluation(step, weights, counts, time.perf_counter() - began, images)
        which = "" if weights == RAW else f", {weights}"
        branch = branch_text(self.config, weights)
        self.display.say(f"step {step}{which}: {branch}{measurement.describe(counts)}")
        return counts

    def log_evaluation(
        self, step: int, weights: str, counts: Counts, seconds: float, images: str = TEST
    ) -> None:
        """Log an evaluation, its accuracies as fractions."""
        self.log.evaluation(
            EvaluationRow(
                step=step,
                attack=self._measurements[images].attack_name,
                num_samples=counts.num_samples,
                natural_accuracy=counts.natural_accuracy / 100,
                adversarial_accuracy=counts.adversarial_accuracy / 100,
                natural_loss=counts.natural_loss,
                adversarial_loss=counts.adversarial_loss,
                seconds=seconds,
                weights=weights,
                images=images,
            )
        )

    @cached_property
    def _measurements(self) -> Mapping[str, Measurement]:
        return measurements(self.config)

    @property
    def watchers(self) -> Watchers:
        """What the checkpoint remembers of evaluations so far."""
        return {"best": self.best, "guard": self.guard}

    def take_snapshot(self, step: int) -> None:
        """Attack the same test images with the parameters of this moment (Bhat et al., Fig. 6)."""
        test = self.setup.data.test
        indices = choose_samples(test.num_samples, self.config.log.snapshot_images)
        attacked = attack_images(
            judged(self.config, self.learner.model, RAW),
            test,
            evaluation_attack(self.config),
            indices,
            seed=self.config.seed,
            precision=self.config.evaluation.precision,
            between_steps=self.trainer.pump,
        )
        originals, _ = test.batch(indices)
        self.log.snapshot(step, attacked.numpy(), originals=originals.cpu().numpy())

    def save(self, step: int) -> None:
        """Begin to write a checkpoint, unless another one is still being written."""
        self.safekeeping.save(step, self._snapshot)

    def save_last(self, step: int) -> None:
        """Begin to write the last checkpoint; messages move on while an earlier one is written."""
        self.safekeeping.save_last(step, self._snapshot, self.trainer.pump)

    def _snapshot(self) -> Snapshot:
        """The state of this moment.

        The published versions are copied, too: the link uses their buffers again before a slow disk
        has taken them, and lending them out longer would take more of them than the copies.
        """
        self._copies.begin()
        state = training_state(
            self.config,
            self.learner,
            self.trainer.attack_schedule,
            self.trainer.publisher.held(),
            {**self.setup.numerics, "sources": ",".join(self.setup.sources)},
            self.setup.fingerprints,
            self._copies.copy,
            self.watchers,
        )
        return state, self._copies.completion()

    def log_farewells(self, step: int, farewells: dict[int, Farewell]) -> None:
        for _, farewell in sorted(farewells.items()):
            self.log.attacker(AttackerRow(step=step, work=farewell.work))


def snapshot_shape(config: Config, test: Source) -> tuple[int, int, int, int]:
    """Shape of a snapshot's images: [N, C, H, W]."""
    indices = choose_samples(test.num_samples, config.log.snapshot_images)
    num_images, channels, height, width = test.batch(indices)[0].shape
    return num_images, channels, height, width


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
