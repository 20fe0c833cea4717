"""The trainer's rank from its folder to its result: checkpoint, log, training, report."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.evaluation import Counts
from mpiadv.evaluation.in_run import accuracies
from mpiadv.loops.publisher import Stop
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.averages import make_average
from mpiadv.methods.objectives import Batch, make_objective
from mpiadv.methods.optimizers import make_optimizer, make_schedule
from mpiadv.methods.training_steps import TRAINING_STEPS, Parts
from mpiadv.models import fingerprint
from mpiadv.process.errors import (
    NonFiniteLossError,
    SilentRankError,
    StorageError,
    UnreadableError,
    UserError,
    tell_error,
)
from mpiadv.runlog.rows import END_EVENTS
from mpiadv.session.desk import Desk, open_log, resumed_from, set_damaged_aside
from mpiadv.session.display import Display
from mpiadv.session.opening import opening_lines
from mpiadv.session.recorder import Recorder
from mpiadv.session.safekeeping import Safekeeping, reason_of
from mpiadv.session.setup import Setup
from mpiadv.session.speed_report import speed_lines
from mpiadv.session.state import require_same_data, restore
from mpiadv.storage.checkpoint import save_model
from mpiadv.storage.run_folder import RAW
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.learn import TorchLearner

Evaluate = Callable[[nn.Module, str], Counts]
"""The final evaluation of a model with the weights of that name."""


class Lead:
    """The trainer's rank: builds the learner and what watches it, trains, and reports.

    Use as a context manager: leaving it flushes the log and frees the folder, whatever happened.
    """

    def __init__(self, setup: Setup, desk: Desk) -> None:
        self._setup = setup
        self._desk = desk
        self._stack = ExitStack()
        self._stack.callback(desk.folder.close)
        self._changes = (
            require_same_data(setup.config, desk.checkpoint, setup.fingerprints)
            if desk.checkpoint
            else []
        )
        self._fault = ""
        self._learner = new_learner(setup)
        self._attack_schedule = setup.new_attack_schedule()
        self._restored = (
            restore(self._learner, self._attack_schedule, desk.checkpoint)
            if desk.checkpoint
            else {}
        )
        self._log, told = open_log(setup, desk)
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
            config=setup.config,
            log=self._log,
            safekeeping=self._safekeeping,
            display=self._display,
            learner=self._learner,
            test=setup.data.test,
            threads=setup.threads,
            fingerprints=setup.fingerprints,
        )

    def __enter__(self) -> "Lead":
        return self

    def __exit__(self, *error: object) -> None:
        self._display.close()
        self._stack.close()

    @property
    def _models(self) -> Mapping[str, nn.Module]:
        """What is evaluated and saved, by the name of its weights."""
        return self._learner.step.models

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
            self._farewells = trainer.shut_down(reason)
        step = trainer.dispatcher.step
        self._recorder.log_farewells(step, self._farewells)
        self._train_seconds = time.perf_counter() - began
        self._display.close()
        if self._fault:
            saved = f"checkpoint of step {step} saved" if step else "nothing was trained"
            # What is put right has another fingerprint.
            changed = " data.allow_changes=true" if reason is Stop.REFUSED else ""
            tell_error(f"{self._fault}: {saved}, go on with --resume{changed}")
        elif reason is Stop.INTERRUPTED:
            self._display.say(f"interrupted at step {step}, checkpoint saved: go on with --resume")
        return reason

    def _run(self, trainer: Trainer[Batch], interrupted: Callable[[], bool]) -> Stop:
        """Train; samples that are at fault end the run in order, for all ranks."""
        try:
            return trainer.run(interrupted)
        except UnreadableError as error:
            self._fault = str(error)
            return Stop.INTERRUPTED
        except UserError as error:
            self._fault = str(error)
            return Stop.REFUSED

    def finish(self, evaluate: Evaluate, before_done: Callable[[], None]) -> None:
        """Save the models, evaluate them with the help of all ranks, report, mark the run done.

        `before_done` is called right before the mark, after which nothing may fail any more.

        Raises:
            StorageError: model, log or marker could not be written.
        """
        num_steps = self._setup.config.training.num_steps
        with self._setup.world.at_work():
            saved = self._try_to_save_models()
        self._display.say("evaluating ...")
        results = {name: self._evaluate_or_save(evaluate, name) for name in self._models}
        self._safekeeping.settle(num_steps)
        for name, (counts, seconds) in results.items():
            self._recorder.log_evaluation(num_steps, name, counts, seconds)
        hashes = {name: fingerprint(model) for name, model in self._models.items()}
        for name, found in reversed(hashes.items()):
            self._log.event(END_EVENTS[name], f"hash {found}", num_steps)
        report = "\n".join(self._report(results, hashes))
        try:
            self._leave(report, before_done, models_are_saved=saved)
        finally:
            self._display.say(report)

    def _evaluate_or_save(self, evaluate: Evaluate, weights: str) -> tuple[Counts, float]:
        """A final evaluation and its seconds; test images at fault cost no training."""
        began = time.perf_counter()
        try:
            return evaluate(self._models[weights], weights), time.perf_counter() - began
        except (UserError, UnreadableError) as error:
            num_steps = self._setup.config.training.num_steps
            self._recorder.save_last(num_steps)
            self._safekeeping.settle(num_steps)
            saved = "all steps are trained and saved, go on with --resume"
            raise type(error)(f"{error}: {saved}") from error

    def _save_models(self) -> None:
        self._desk.folder.lock.require_held()
        for name, model in self._models.items():
            save_model(self._desk.folder.model(name), _on_cpu(model))

    def _try_to_save_models(self) -> bool:
        try:
            self._save_models()
        except OSError as error:
            text = f"{self._desk.folder.path} did not take the model ({reason_of(error)})"
            self._display.say(f"warning: {text}: tried again after the evaluation")
            return False
        return True

    def _leave(
        self, report: str, before_done: Callable[[], None], *, models_are_saved: bool
    ) -> None:
        folder, newest = self._desk.folder, self._safekeeping.newest
        try:
            folder.lock.require_held()
            if not models_are_saved:
                self._save_models()
            self._log.flush(durable=True)
            before_done()
            folder.mark_done(report)
        except OSError as error:
            raise StorageError(
                f"{folder.path} could not take the end of the run ({reason_of(error)}), of its "
                f"checkpoints {newest()}: free space, or whatever it takes, then use --resume"
            ) from error

    @contextmanager
    def _failures_recorded(self, trainer: Trainer[Batch]) -> Iterator[None]:
        """Log what ends the training; where it could go on elsewhere, save it first."""
        try:
            yield
        except NonFiniteLossError as error:
            self._recorder.on_event("diverged", str(error))
            raise
        except SilentRankError as error:
            step = trainer.dispatcher.step
            self._recorder.on_event("silent", str(error))
            self._recorder.save_last(step)
            self._safekeeping.settle(step, trainer.pump)
            self._safekeeping.require_saved(step)
            raise

    def _save_at_end(self, trainer: Trainer[Batch], reason: Stop) -> None:
        step = trainer.dispatcher.step
        is_early = reason is not Stop.FINISHED
        if self._fault:
            self._recorder.on_event("bad samples", self._fault)
            if step == 0:
                return
        if is_early or self._setup.config.checkpoint.every_steps:
            # Parting and the evaluation may fail yet: the training is not to be done again then.
            self._recorder.save_last(step)
        if is_early:
            self._safekeeping.settle(step, trainer.pump)
            self._safekeeping.require_saved(step)
            self._recorder.on_event("interrupted", f"checkpoint of step {step}")

    def _new_trainer(self) -> Trainer[Batch]:
        setup = self._setup
        with setup.world.at_work():
            model = setup.new_model()
        crafter = TorchCrafter(setup.plan, model, setup.data.train, setup.device)
        link = setup.world.trainer_link(
            setup.link_shape(self._learner.parameter_bytes),
            setup.device.allocate,
            setup.device.pin,
        )
        if link.attackers:
            told = (
                f"{len(link.readers)} of {len(link.attackers)} attackers share memory with rank 0"
            )
            self._log.event("sharing", told, self._desk.first_step)
        mode = StalenessMode(setup.config.staleness.mode)
        dispatcher = Dispatcher(
            setup.plan.rule,
            attackers=link.attackers,
            outstanding=setup.config.staleness.credit,
            num_tickets=setup.config.training.num_steps,
            first_ticket=self._desk.first_step,
            mode=mode,
            trainer_crafts=setup.config.staleness.trainer_crafts,
        )
        return Trainer(
            dispatcher=dispatcher,
            link=link,
            learner=self._learner,
            crafter=crafter,
            mode=mode,
            attack_schedule=self._attack_schedule,
            on_step=self._recorder.on_step,
            on_event=self._recorder.on_event,
            deadline_seconds=setup.config.deadline_seconds,
            overdue_seconds=setup.config.overdue_seconds,
            fresh_every=setup.config.log.fresh_every,
            on_probe=self._recorder.on_probe,
        )

    def _report(
        self, results: Mapping[str, tuple[Counts, float]], hashes: Mapping[str, str]
    ) -> list[str]:
        folder, config = self._desk.folder, self._setup.config
        num_steps = config.training.num_steps - self._desk.first_step
        rate = num_steps / self._train_seconds if num_steps else 0.0
        share = self._safekeeping.seconds / max(self._train_seconds, 1e-9)
        rows = {
            **{
                f"{_said(name)}{title}": text
                for name, (counts, _) in results.items()
                for title, text in accuracies(config, counts).items()
            },
            "training": f"{self._train_seconds:.1f} s, {rate:.1f} steps/s",
            "log, checkpoints": f"{100 * share:.2f} % of it",
            **self._safekeeping.report(),
            "evaluation": f"{sum(seconds for _, seconds in results.values()):.1f} s",
            "log": str(folder.log),
            **{f"{_said(name)}model": str(folder.model(name)) for name in hashes},
            **{f"{_said(name)}hash": found for name, found in hashes.items()},
        }
        width = max(map(len, rows))
        speeds = self._recorder.speed.speeds(self._setup.world.roster, self._farewells)
        table = speed_lines(speeds)
        return [
            *([*table, ""] if table else []),
            *(f"{name:<{width}}  {value}" for name, value in rows.items()),
        ]


def new_learner(setup: Setup) -> TorchLearner:
    """The learner of a run that begins."""
    config, plan = setup.config, setup.plan
    num_steps = config.training.num_steps
    model = setup.new_model()
    optimizer = make_optimizer(config.optimizer, model.parameters())
    parts = Parts(
        model=model,
        objective=make_objective(config.objective),
        optimizer=optimizer,
        schedule=make_schedule(config.schedule, optimizer, num_steps=num_steps),
        average=make_average(config.average, model, num_steps=num_steps),
        seed=plan.seed,
        precision=plan.precision,
        num_clean=plan.num_clean,
    )
    return TorchLearner(
        plan,
        TRAINING_STEPS["ordinary"](parts),
        setup.device,
        tells_gradient=setup.new_attack_schedule().hears_gradient,
    )


def _said(weights: str) -> str:
    """Of which weights a line is, where they are not those that were trained."""
    return "" if weights == RAW else f"{weights} "


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}
