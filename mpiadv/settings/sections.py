"""The sections of a configuration: typed, frozen. Each part receives its own one."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from mpiadv.contract.tickets import StalenessRule
from mpiadv.process.errors import UserError
from mpiadv.settings.choices import Climbed, MemoryFormat, Norm, Precision
from mpiadv.settings.numbers import (
    MOST_SAMPLES,
    MOST_STALENESS,
    MOST_STEPS,
    AtLeastOne,
    Count,
    Fraction,
    Number,
    Positive,
    Radius,
    Seconds,
    StepSize,
)
from mpiadv.settings.pixels import RELATIVE_STEP_SIZE
from mpiadv.settings.unread import ReadWith, read_with_name
from mpiadv.storage.run_folder import EMA, RAW

Steps = Annotated[AtLeastOne, Field(le=MOST_STEPS)]
StepsOrNever = Annotated[Count, Field(le=MOST_STEPS)]
AttackSteps = Annotated[Count, Field(le=10**5)]
Samples = Annotated[AtLeastOne, Field(le=MOST_SAMPLES)]
Staleness = Annotated[Count, Field(le=MOST_STALENESS)]


def _plain(text: str) -> str:
    if found := re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise PydanticCustomError("text", f"has a control character, {found[0]!r}".replace("{", ""))
    return text


_M_PLUS = read_with_name("m_plus")
_PIECEWISE = read_with_name("piecewise")
_PAIRED = read_with_name("trades", "mart", "alp", "score")
_SMOOTHED = read_with_name("adversarial", "trades", "alp", "score")
_SGD = read_with_name("sgd")
_MULTISTEP = read_with_name("multistep")
_STEP_SIZE_IS_NULL = ReadWith("step_size=null", lambda attack: attack.step_size is None)
_START_IS_NULL = ReadWith("start=null", lambda attack: attack.start is None)
_DECAY = ReadWith("decay", lambda average: average.decay is not None)
_SNAPSHOTS = ReadWith("snapshot_every above 0", lambda log: log.snapshot_every > 0)

Text = Annotated[str, Field(max_length=4096), AfterValidator(_plain)]


class Section(BaseModel):
    """A section of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which images to train and test on, and how they are augmented."""

    name: Text = "digits"
    """A registered data set, or the dotted name of a function (`my_package.my_module:function`)."""
    root: Text | None = None
    """Folder that holds, or receives, the files of the data set."""
    download: bool = True
    """Whether missing files may be downloaded into `root`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the data set's function."""
    batch_size: Annotated[AtLeastOne, Field(le=10**6)] = 64
    """Samples per ticket."""
    train_samples: Samples | None = None
    """Use only so many training samples, the same ones every time; null: all."""
    crop_padding: Annotated[Count, Field(le=1024)] = 0
    """Pixels of zero padding before a random crop back to the image's size; 0: no cropping."""
    flip: bool = False
    """Whether images are mirrored left to right at random."""
    num_workers: Annotated[AtLeastOne, Field(le=1024)] | Literal["auto"] = "auto"
    """Threads that read samples ahead of time, per rank; auto: 2 for image files, 1 for your own
    data set, which need not stand several then."""
    allow_changes: bool = False
    """Whether `--resume` goes on with other training images than the run began with."""

    def threads(self, usual: int) -> int:
        """`num_workers`, or the usual number of a kind of data set."""
        return usual if self.num_workers == "auto" else self.num_workers


class ModelConfig(Section):
    """The classifier. It takes pixels in [0, 1]; normalisation is its first layer."""

    name: Text = "digits"
    """A registered model, `torchvision:NAME`, or a dotted name (`my_package.module:function`)."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the model's function."""
    mean: list[Annotated[Number, Field(ge=-1e6, le=1e6)]] | None = None
    """Mean per channel, subtracted first; null: no normalisation."""
    std: list[Positive] | None = None
    """Standard deviation per channel, divided by second; null: no normalisation."""

    @model_validator(mode="after")
    def _mean_and_std_go_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("model.mean and model.std go together: give both or neither")
        return self


class AttackConfig(Section):
    """The attack that crafts the training batches."""

    name: Text = "pgd"
    """A registered attack (pgd; fgsm and ufgsm, of a single step; cw, pgd on the margin), or the
    dotted name of a function (`my_package.module:function`)."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of your own attack's function."""
    norm: Norm = "linf"
    """The norm of the ball around each image."""
    epsilon: Radius = 0.15
    """Radius of the ball, in pixels of [0, 1]; also a fraction, 8/255."""
    num_steps: Annotated[Count, Field(le=10**5)] = 8
    """Attack steps per ticket, where the attack does not say so itself."""
    step_size: StepSize | None = None
    """Step size in pixels of [0, 1]; null: `relative_step_size * epsilon / num_steps`."""
    relative_step_size: Annotated[Positive, _STEP_SIZE_IS_NULL] = RELATIVE_STEP_SIZE
    """Step size as a multiple of `epsilon / num_steps`; used where `step_size` is null."""
    loss: Climbed | None = None
    """What is climbed: ce (cross-entropy), margin (best wrong logit less the correct one), kl
    (divergence from the natural prediction), squares (squared distance from it); null: what attack
    or objective ask for, else ce."""
    start: Literal["uniform", "natural", "gaussian"] | None = None
    """Where the attack starts: uniform (anywhere in the ball), natural (at the image), gaussian
    (0.001 N(0, 1) away); null: where attack or objective ask for, else uniform."""
    random_start: Annotated[bool, _START_IS_NULL] = True
    """false: where `start` is null and the attack does not say, it starts at the natural image."""
    batch_norm: Literal["eval", "train"] = "eval"
    """Mode of the whole model while it is attacked; its running statistics never change."""
    epsilon_warmup_steps: StepsOrNever = 0
    """Training steps over which epsilon grows linearly from 0 to `epsilon`."""


class AttackScheduleConfig(Section):
    """How the settings of the attack change during the run. See the README, "Attack schedules"."""

    name: Text = "constant"
    """constant: as in `attack`; piecewise: `first_steps`, then `later_steps` from `milestones` on;
    m_plus: from `first_steps` one more after an epoch in which gradients grew (Wang et al. 2021).
    No attack takes more than `attack.num_steps`."""
    first_steps: Annotated[AttackSteps, read_with_name("piecewise", "m_plus")] = 0
    """Attack steps at first, with m_plus in the first epoch."""
    milestones: Annotated[list[Steps], _PIECEWISE] = Field(default_factory=list)
    """Training steps from which on versions bring the next number of `later_steps` (piecewise);
    attacks take it when they begin on such a version, up to `staleness.max_staleness` later."""
    later_steps: Annotated[list[AttackSteps], _PIECEWISE] = Field(default_factory=list)
    """Attack steps from each of the `milestones` on (piecewise)."""
    gamma: Annotated[Positive, _M_PLUS] = 1.01
    """How much the gradient magnitude of an epoch has to grow for one more step (m_plus)."""


class ObjectiveConfig(Section):
    """What training minimises."""

    name: Text = "adversarial"
    """A registered objective. Of adversarial images: adversarial (cross-entropy), margin (hinge).
    Of natural ones and theirs: trades, mart, alp, score."""
    beta: Annotated[Number, Field(ge=0, le=1e6), _PAIRED] = 6.0
    """Weight of what keeps the two predictions together; left out: mart and score 5, alp 0.5."""
    label_smoothing: Annotated[Fraction, _SMOOTHED] = 0.0
    """Share of each label that is spread over all classes (adversarial, trades, alp, score)."""
    clean_fraction: Fraction = 0.0
    """Share of each batch that stays natural."""

    @model_validator(mode="before")
    @classmethod
    def _usual_weight(cls, given: Any) -> Any:
        """Each paper has a weight of its own."""
        if not isinstance(given, dict) or "beta" in given:
            return given
        usual = {"mart": 5.0, "alp": 0.5, "score": 5.0}.get(str(given.get("name")))
        return given if usual is None else {**given, "beta": usual}


class OptimizerConfig(Section):
    """The optimiser, by torch's own implementation."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    """sgd; adam, whose weight decay is an L2 penalty; adamw, whose weight decay is decoupled."""
    learning_rate: Positive = 5e-3
    """Learning rate; the peak for `one_cycle`."""
    momentum: Annotated[Fraction, _SGD] = 0.9
    """Momentum (sgd)."""
    nesterov: Annotated[bool, _SGD] = False
    """Nesterov momentum (sgd)."""
    betas: Annotated[tuple[Fraction, Fraction], read_with_name("adam", "adamw")] = (0.9, 0.999)
    """Decay rates of the moments (adam, adamw)."""
    weight_decay: Annotated[Number, Field(ge=0, le=1e6)] = 0.0
    """Weight decay, on all parameters."""


class ScheduleConfig(Section):
    """How the learning rate changes, by torch's own schedulers, once per training step."""

    name: Literal["constant", "multistep", "cosine", "one_cycle"] = "one_cycle"
    """constant; multistep: drops at `milestones`; cosine: falls to 0 along half a cosine;
    one_cycle: rises to the peak, then falls to almost 0 (Smith and Topin 2018)."""
    milestones: Annotated[list[Steps], _MULTISTEP] = Field(default_factory=list)
    """Training steps after which the rate is multiplied by `gamma` (multistep)."""
    gamma: Annotated[Positive, _MULTISTEP] = 0.1
    """Factor at each milestone (multistep)."""
    rising_fraction: Annotated[Number, Field(gt=0, lt=1), read_with_name("one_cycle")] = 0.3
    """Share of the run in which the rate rises (one_cycle)."""


class AverageConfig(Section):
    """The moving average of the trained weights, evaluated and saved beside them."""

    decay: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Share of the average that stays at each training step, such as 0.995; null: no average."""
    warmup_fraction: Annotated[Fraction, _DECAY] = 0.025
    """Share of the run during which the average is the weights as they are; `decay` is approached
    after that, as (1 + d) / (10 + d) over the d training steps since."""

    @property
    def weights(self) -> tuple[str, ...]:
        """What there is to evaluate and save, `RAW` first."""
        return (RAW,) if self.decay is None else (RAW, EMA)


class StalenessConfig(Section):
    """How old the parameters of an attack may be. See the README, "Staleness"."""

    mode: Literal["fixed", "bounded"] = "fixed"
    """fixed: exactly the versions of the ticket rule, same bits always; bounded: the newest
    parameters at hand within the same bounds, not reproducible."""
    max_staleness: Staleness = 16
    """Bound for every attack step, and the lag of the first of several, in training steps."""
    final_staleness: Staleness = 2
    """Bound for the last attack step before those of the trainer, in training steps."""
    publish_every: Annotated[AtLeastOne, Field(le=MOST_STALENESS + 1)] = 2
    """Training steps from one broadcast of the parameters to the next."""
    trainer_steps: Annotated[Count, Field(le=10**5)] = 0
    """How many of the last attack steps the trainer runs on its current parameters; at most all."""
    outstanding: Annotated[AtLeastOne, Field(le=MOST_STALENESS)] | Literal["auto"] = "auto"
    """Tickets granted to one attacker and not yet consumed, at most; auto: 2 for the slowest, and
    2 n for one that is n times as fast. Does not change the result."""
    trainer_crafts: bool = True
    """Whether the trainer crafts batches of its own while the attackers cannot feed it. Where no
    attacker can craft one, as on a single rank, it always does; does not change the result."""

    @model_validator(mode="after")
    def _rule_is_admissible(self) -> Self:
        try:
            self.rule()
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def credit(self) -> int | None:
        """Most tickets of an attacker; None: by its speed."""
        return None if self.outstanding == "auto" else self.outstanding

    def rule(self) -> StalenessRule:
        return StalenessRule(
            max_staleness=self.max_staleness,
            final_staleness=self.final_staleness,
            publish_every=self.publish_every,
            trainer_steps=self.trainer_steps,
        )


class TrainingConfig(Section):
    """Length and numerics of the run."""

    num_steps: Steps = 400
    """Training steps; each consumes one ticket."""
    step: Text = "ordinary"
    """What the trainer does with a batch: a registered training step (ordinary)."""
    precision: Precision = "float32"
    """bfloat16: mixed precision by autocast, in training and attacks."""
    memory_format: Literal["auto"] | MemoryFormat = "auto"
    """How weights and features lie in memory, on which bits depend; auto: channels last where that
    is faster, as it is for convolutions, and where the model takes its features so."""
    wire_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """What crafted batches and published parameters are rounded to, so that they take half as many
    bytes on the network; also what the trainer crafts, so that the bits are the same for any number
    of ranks. The trained model itself is never rounded."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU of the rank's local number where there is one, else the CPU."""
    cuda_graphs: bool = False
    """Whether, on a GPU, looks of attacks and training gradients are captured as CUDA graphs, which
    start as one piece and give the same bits; takes the memory of a forward and backward pass more.
    What cannot be captured runs as without, which is told. Not tried on a GPU yet."""
    threads: Annotated[AtLeastOne, Field(le=1024)] | Literal["auto"] = 1
    """CPU threads per rank; auto: cores of the rank's node divided by its ranks. The same bits
    need the same number."""


class EvaluationConfig(Section):
    """Natural and PGD accuracy on test images, during the run and at its end."""

    every_steps: StepsOrNever = 100
    """Training steps between evaluations; 0: only at the end."""
    num_samples: Samples = 500
    """Test images of an evaluation during the run; fewer than all are the same ones every time."""
    final_samples: Samples | None = None
    """Test images of the evaluation at the end; null: all."""
    num_steps: Annotated[AtLeastOne, Field(le=10**5)] = 40
    """PGD steps."""
    step_size: StepSize | None = None
    """PGD step size in pixels of [0, 1], made for one norm and one epsilon; null: one that fits
    any, that of attacks with the default `relative_step_size`."""
    batch_size: Annotated[AtLeastOne, Field(le=10**6)] = 500
    """Test images per batch; each batch has its own random start."""
    precision: Precision = "float32"
    """In which networks judge and are attacked; bfloat16: by autocast."""


class LogConfig(Section):
    """The HDF5 log."""

    flush_seconds: Seconds = 5.0
    """Seconds between flushes to disk."""
    natural_every: StepsOrNever = 10
    """Tickets between measurements of natural accuracy on the batch; 0: never."""
    fresh_every: StepsOrNever = 0
    """Training steps between batches that are attacked again, wholly on the parameters of their own
    step; a multiple of `staleness.publish_every`; 0: never."""
    snapshot_every: StepsOrNever = 0
    """Training steps between snapshots: the same test images attacked again; 0: never."""
    snapshot_images: Annotated[AtLeastOne, Field(le=10**4), _SNAPSHOTS] = 8
    """How many test images a snapshot attacks."""


class CheckpointConfig(Section):
    """Checkpoints, from which `--resume` goes on."""

    every_steps: StepsOrNever = 100
    """Training steps between checkpoints, the last one after training; 0: only when interrupted.
    One that comes due while the one before is still being written is left out."""
    keep: Annotated[AtLeastOne, Field(le=10**6)] = 2
    """How many of the newest checkpoints stay on disk."""
