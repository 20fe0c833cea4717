"""The end of a run on the trainer's rank: models saved, evaluated and reported, the run marked."""

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from mpiadv.comm.messages import Farewell
from mpiadv.evaluation import Counts
from mpiadv.evaluation.attack_specs import threat_words
from mpiadv.evaluation.in_run import accuracies
from mpiadv.models import fingerprint
from mpiadv.process.errors import StorageError, UnreadableError, UserError
from mpiadv.runlog.rows import END_EVENTS
from mpiadv.session.branches import branch_text, judged
from mpiadv.session.desk import Desk
from mpiadv.session.recorder import Recorder
from mpiadv.session.safekeeping import reason_of
from mpiadv.session.setup import Setup
from mpiadv.session.speed_report import speed_lines
from mpiadv.storage.checkpoint import save_model
from mpiadv.storage.run_folder import ATTACKED, BEST, MODEL_NAMES, NATURAL, RAW

Evaluate = Callable[[nn.Module, str, Callable[[int, int], None]], Counts]
"""The final evaluation of a model with the weights of that name; the last is told of each batch."""


@dataclass(kw_only=True)
class Ending:
    """What follows the last training step."""

    setup: Setup
    desk: Desk
    recorder: Recorder
    farewells: dict[int, Farewell]
    train_seconds: float

    @cached_property
    def models(self) -> Mapping[str, nn.Module]:
        """What is evaluated, by the name of its weights."""
        models = dict(self.recorder.learner.step.models)
        further: Mapping[str, Callable[[], nn.Module]] = {
            BEST: lambda: self.recorder.best.put_into(self.setup.new_model()),
            **dict.fromkeys((NATURAL, ATTACKED), lambda: models[RAW]),
        }
        wanted = self.setup.config.weights
        return {name: models[name] if name in models else further[name]() for name in wanted}

    @property
    def saved(self) -> Mapping[str, nn.Module]:
        """Those that have a file."""
        return {name: model for name, model in self.models.items() if name in MODEL_NAMES}

    def finish(self, evaluate: Evaluate, before_done: Callable[[], None]) -> None:
        """Save the models, evaluate them with the help of all ranks, report, mark the run done.

        `before_done` is called right before the mark, after which nothing may fail any more.

        Raises:
            StorageError: model, log or marker could not be written.
        """
        num_steps, say = self.setup.config.training.num_steps, self.recorder.display.say
        with self.setup.world.at_work():
            saved = self._try_to_save_models()
        say(f"evaluating {self._num_evaluated:,} test images ...")
        results = {name: self._evaluate_or_save(evaluate, name) for name in self.models}
        self.recorder.safekeeping.settle(num_steps)
        for name, (counts, seconds) in results.items():
            self.recorder.log_evaluation(num_steps, name, counts, seconds)
        hashes = {name: fingerprint(model) for name, model in self.saved.items()}
        for name, found in reversed(hashes.items()):
            self.recorder.log.event(END_EVENTS[name], f"hash {found}", num_steps)
        report = "\n".join(self._report(results, hashes))
        try:
            self._leave(report, before_done, models_are_saved=saved)
        finally:
            say(report)

    def _evaluate_or_save(self, evaluate: Evaluate, weights: str) -> tuple[Counts, float]:
        """A final evaluation and its seconds; test images at fault cost no training."""
        began = time.perf_counter()
        try:
            model = judged(self.setup.config, self.models[weights], weights)
            counts = evaluate(model, weights, self.recorder.display.evaluation())
            return counts, time.perf_counter() - began
        except (UserError, UnreadableError) as error:
            num_steps = self.setup.config.training.num_steps
            self.recorder.save_last(num_steps)
            self.recorder.safekeeping.settle(num_steps)
            saved = "all steps are trained and saved, go on with --resume"
            raise type(error)(f"{error}: {saved}") from error

    @property
    def _num_evaluated(self) -> int:
        there_are = self.setup.data.test.num_samples
        return min(self.setup.config.evaluation.final_samples or there_are, there_are)

    def _save_models(self) -> None:
        self.desk.folder.lock.require_held()
        for name, model in self.saved.items():
            on_cpu = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
            save_model(self.desk.folder.model(name), on_cpu)

    def _try_to_save_models(self) -> bool:
        try:
            self._save_models()
        except OSError as error:
            text = f"{self.desk.folder.path} did not take the model ({reason_of(error)})"
            self.recorder.display.say(f"warning: {text}: tried again after the evaluation")
            return False
        return True

    def _leave(
        self, report: str, before_done: Callable[[], None], *, models_are_saved: bool
    ) -> None:
        folder, newest = self.desk.folder, self.recorder.safekeeping.newest
        try:
            folder.lock.require_held()
            if not models_are_saved:
                self._save_models()
            self.recorder.log.flush(durable=True)
            before_done()
            folder.mark_done(report)
        except OSError as error:
            raise StorageError(
                f"{folder.path} could not take the end of the run ({reason_of(error)}), of its "
                f"checkpoints {newest()}: free space, or whatever it takes, then use --resume"
            ) from error

    def _report(
        self, results: Mapping[str, tuple[Counts, float]], hashes: Mapping[str, str]
    ) -> list[str]:
        folder, config, kept = self.desk.folder, self.setup.config, self.recorder.safekeeping
        num_steps = config.training.num_steps - self.desk.first_step
        rate = num_steps / self.train_seconds if num_steps else 0.0
        share = kept.seconds / max(self.train_seconds, 1e-9)
        rows = {
            **{
                f"{branch_text(config, name)}{_said(name)}{title}": text
                for name, (counts, _) in results.items()
                for title, text in accuracies(config, counts).items()
            },
            **self._not_looked_at(),
            **self._which_is_best(),
            "training": f"{self.train_seconds:.1f} s, {rate:.1f} steps/s",
            "log, checkpoints": f"{100 * share:.2f} % of it",
            **kept.report(),
            "evaluation": f"{sum(seconds for _, seconds in results.values()):.1f} s",
            "log": str(folder.log),
            **{f"{_said(name)}model": str(folder.model(name)) for name in hashes},
            **{f"{_said(name)}hash": found for name, found in hashes.items()},
        }
        width = max(map(len, rows))
        roster, trainers = self.setup.world.roster, self.setup.division.trainer_ranks
        table = speed_lines(self.recorder.speed.speeds(roster, self.farewells, trainers))
        return [
            *([*table, ""] if table else []),
            *(f"{name:<{width}}  {value}" for name, value in rows.items()),
        ]

    def _not_looked_at(self) -> dict[str, str]:
        """How to look at the threat models that the run's own evaluations leave out."""
        others = threat_words(self.setup.config.attack.further or ())
        if not others:
            return {}
        command = ["mpiadv", "evaluate", str(self.desk.folder.path)]
        for word in ("pgd", *others):
            command += ["--attack", word]
        return {"other threat models": shlex.join(command)}

    def _which_is_best(self) -> dict[str, str]:
        best = self.recorder.best
        if not best.state:
            return {}
        told = f"{best.weights} of step {best.step}, {best.accuracy:.2f} % of images held out"
        return {"best weights": told}


def _said(weights: str) -> str:
    """Of which weights a line is, where it is not of those that were trained."""
    return "" if weights in (RAW, NATURAL, ATTACKED) else f"{weights} "
