"""The whole configuration of a run, validated once, and what of it decides the bits."""

import math
import os
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from mpiadv.process.errors import UserError
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.method_sections import (
    AttackConfig,
    AttackScheduleConfig,
    AverageConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from mpiadv.settings.numbers import Count, Seconds
from mpiadv.settings.pixels import require_length, require_shift
from mpiadv.settings.section import Section, Text
from mpiadv.settings.sections import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    GuardConfig,
    LogConfig,
    ModelConfig,
    StalenessConfig,
    TrainingConfig,
)
from mpiadv.storage.run_folder import ATTACKED, BEST, NATURAL


def _with_home(path: str) -> str:
    """`path` with a home in the place of `~`, which no shell puts behind `output=`."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(f"output={path}: nobody knows whose home that is: write it in full")
    return expanded


OutputFolder = Annotated[Text, AfterValidator(_with_home)]
"""Not `data.root`, which is seen to where the data are: code may take it as is."""


class Config(Section):
    """The whole configuration of a run."""

    output: OutputFolder = "runs/digits"
    """Folder of the run: log, checkpoints, final model."""
    seed: Annotated[Count, Field(le=10**18)] = 0
    """Seed of everything random."""
    deadline_seconds: Seconds = 600.0
    """Longest silence of another rank; then the run goes on without it, or ends with an error.
    Also the longest wait for a checkpoint at the end of the run."""
    overdue_seconds: Seconds | None = None
    """Longest wait for a granted ticket until rank 0 crafts it too; null: ten times the usual
    crafting time, and a second."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    attack: AttackConfig = AttackConfig()
    attack_schedule: AttackScheduleConfig = AttackScheduleConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    average: AverageConfig = AverageConfig()
    staleness: StalenessConfig = StalenessConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    guard: GuardConfig = GuardConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _lengths_lie_in_the_box(self) -> Self:
        self.require_lengths()
        return self

    @model_validator(mode="after")
    def _parameters_of_fresh_batches_are_published(self) -> Self:
        fresh, every = self.log.fresh_every, self.staleness.publish_every
        if fresh % every:
            below = fresh - fresh % every
            working = " or ".join(str(number) for number in (below, below + every) if number)
            raise ValueError(
                f"log.fresh_every={fresh} is no multiple of staleness.publish_every={every}: "
                f"use {working}"
            )
        return self

    @model_validator(mode="after")
    def _trainer_runs_no_more_steps_than_there_are(self) -> Self:
        if self.attack.name == "pgd":  # how many others take is known where attacks are
            try:
                self.staleness.rule().require_steps_for_trainer(self.attack.num_steps)
            except UserError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _branch_is_there(self) -> Self:
        if self.evaluation.branch == NATURAL and not self.model.mixture_batch_norm:
            raise ValueError(
                "evaluation.branch=natural is of models with model.mixture_batch_norm=true: leave "
                "it out"
            )
        return self

    @property
    def weights(self) -> tuple[str, ...]:
        """What there is to evaluate at the end, `RAW` first."""
        best = (BEST,) if self.data.held_out_samples else ()
        other = ATTACKED if self.evaluation.branch == NATURAL else NATURAL
        return (
            *self.average.weights,
            *best,
            *((other,) if self.model.mixture_batch_norm else ()),
        )

    def require_lengths(self, image_shape: tuple[int, int, int] | None = None) -> None:
        """Refuse a ball that holds every image, a step that leaves it, a shift that leaves nothing.

        `image_shape` is [C, H, W]; None: it is not known yet.
        """
        num_pixels = None if image_shape is None else math.prod(image_shape)
        lengths = {
            "attack.epsilon": self.attack.epsilon,
            "attack.step_size": self.attack.step_size,
            "evaluation.step_size": self.evaluation.step_size,
        }
        for key, pixels in lengths.items():
            require_length(key, pixels or 0.0, self.attack.norm, num_pixels)
        for number, threat in enumerate(self.attack.further or ()):
            for key, pixels in (("epsilon", threat.epsilon), ("step_size", threat.step_size)):
                place = f"attack.further[{number}].{key}"
                require_length(place, pixels or 0.0, threat.name, num_pixels)
            if image_shape is not None and threat.epsilon is None:
                require_shift(f"attack.further[{number}].pixels", threat.pixels, image_shape)

    def identity(self) -> dict[str, Any]:
        """The flat `section.key` settings that decide the bits of the trained model."""
        flat = flatten(self.model_dump(mode="json"))
        free = tuple(f"{each}." for each in FREE_TO_CHANGE)
        return {key: value for key, value in flat.items() if not f"{key}.".startswith(free)}


FREE_TO_CHANGE = (
    "output", "deadline_seconds", "overdue_seconds", "data.root", "data.download",
    "data.num_workers", "data.allow_changes", "staleness.outstanding", "staleness.trainer_crafts",
    "training.cuda_graphs", "training.device", "training.team_layout", "training.threads",
    "training.trainers", "evaluation", "guard", "log",
    "checkpoint",
)  # fmt: skip
"""Keys, or sections, that a resumed run may change: none is part of what is trained.
Another device or number of threads computes other bits: resuming on one is told as a warning."""
