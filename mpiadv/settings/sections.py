"""The sections of the configuration but for those of the method: typed, frozen."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mpiadv.contract.tickets import StalenessRule
from mpiadv.process.errors import UserError
from mpiadv.settings.choices import MemoryFormat, Precision
from mpiadv.settings.numbers import (
    MOST_SAMPLES,
    MOST_STALENESS,
    AtLeastOne,
    Count,
    Fraction,
    Number,
    Positive,
    PowerOfTwo,
    Seconds,
    StepSize,
)
from mpiadv.settings.section import Section, Steps, StepsOrNever, Text
from mpiadv.settings.unread import ReadWith

Samples = Annotated[AtLeastOne, Field(le=MOST_SAMPLES)]
Staleness = Annotated[Count, Field(le=MOST_STALENESS)]

_AWP = ReadWith("step=awp", lambda training: training.step == "awp")
_TEAMS = ReadWith("trainers above 1", lambda training: training.trainers > 1)
_YOPO = ReadWith("step=yopo", lambda training: training.step == "yopo")
_CHANGED = ReadWith("rand_augment_ops above 0", lambda data: data.rand_augment_ops > 0)
_GUARDED = ReadWith("every_steps above 0", lambda guard: guard.every_steps > 0)
_SNAPSHOTS = ReadWith("snapshot_every above 0", lambda log: log.snapshot_every > 0)


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
    held_out_samples: Samples | None = None
    """Training samples that are kept out of training, the same ones every time, and evaluated with
    the test images during the run: the weights that withstand most there are `best.pt`."""
    crop_padding: Annotated[Count, Field(le=1024)] = 0
    """Pixels of zero padding before a random crop back to the image's size; 0: no cropping."""
    flip: bool = False
    """Whether images are mirrored left to right at random."""
    rand_augment_ops: Annotated[Count, Field(le=10)] = 0
    """Operations of RandAugment on each image, after cropping; 0: none."""
    rand_augment_magnitude: Annotated[Count, Field(le=30), _CHANGED] = 9
    """How strong they are, up to 30."""
    cutmix_alpha: Positive | None = None
    """Shape of the beta distribution of how much of each image CutMix keeps, 1 in the paper; the
    rest is a box of another one, and labels are mixed accordingly; null: no CutMix."""
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
    """A registered model, `torchvision:NAME`, `timm:NAME`, or a dotted name
    (`my_package.module:function`)."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the model's function."""
    mean: list[Annotated[Number, Field(ge=-1e6, le=1e6)]] | None = None
    """Mean per channel, subtracted first; null: no normalisation."""
    std: list[Positive] | None = None
    """Standard deviation per channel, divided by second; null: no normalisation."""

    mixture_batch_norm: bool = False
    """Whether batch norm is doubled: natural images pass through one set of statistics and affine
    parameters, adversarial ones, and attacks, through the other (Xie and Yuille 2020)."""

    @model_validator(mode="after")
    def _mean_and_std_go_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("model.mean and model.std go together: give both or neither")
        return self


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

    def rule(self, *, tickets_per_step: int = 1) -> StalenessRule:
        return StalenessRule(
            max_staleness=self.max_staleness,
            final_staleness=self.final_staleness,
            publish_every=self.publish_every,
            trainer_steps=self.trainer_steps,
            tickets_per_step=tickets_per_step,
        )


class TrainingConfig(Section):
    """Length and numerics of the run."""

    num_steps: Steps = 400
    """Training steps; each consumes `tickets_per_step` tickets."""
    tickets_per_step: PowerOfTwo = 1
    """Batches whose gradients, and batch statistics, a training step takes the mean of: 1, 2, 4, 8,
    ... Staleness goes on counting training steps."""
    trainers: PowerOfTwo = 1
    """Ranks that train, each on its share of a step's tickets and with attackers of its own: 1, 2,
    4, ... up to `tickets_per_step`. Does not change the result."""
    team_layout: Annotated[Literal["hosts", "first"], _TEAMS] = "hosts"
    """Where the ranks of a trainer are. hosts: on hosts of its own, the trainer on the first rank
    there, or several trainers share out the ranks of each host evenly; first: the first ranks
    train, and the others take turns in joining them."""
    step: Text = "ordinary"
    """What the trainer does with a batch, a registered training step: ordinary; awp, whose gradient
    is that at weights moved up the loss (Wu et al. 2020); free and deat, which train on it as often
    as the attack has steps, and attack it meanwhile (Shafahi et al. 2019, Wang et al. 2021); yopo,
    one update from as many passes (Zhang et al. 2019)."""
    awp_gamma: Annotated[Positive, _AWP] = 0.01
    """How far each tensor of weights is moved, relative to its own length (awp)."""
    awp_from_step: Annotated[StepsOrNever, _AWP] = 0
    """Training steps before weights are moved (awp)."""
    yopo_steps: Annotated[AtLeastOne, Field(le=10**5), _YOPO] = 3
    """Attack steps by the gradient of each pass (yopo)."""
    precision: Precision = "float32"
    """bfloat16: mixed precision by autocast, in training and attacks."""
    memory_format: Literal["auto"] | MemoryFormat = "auto"
    """How weights and features lie in memory, on which bits depend; auto: channels last for
    convolutions of images of 256 pixels (16 x 16) or more, on GPUs in bfloat16 alone, as it is
    faster there, and where the model takes its features so."""
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

    @model_validator(mode="after")
    def _trainers_share_out_the_tickets(self) -> Self:
        trainers, tickets = self.trainers, self.tickets_per_step
        if trainers > tickets:
            raise ValueError(
                f"training.trainers={trainers} cannot share out the {tickets} "
                f"{'tickets' if tickets > 1 else 'ticket'} of a training step: use "
                f"training.trainers<={tickets} or training.tickets_per_step>={trainers}"
            )
        return self


class EvaluationConfig(Section):
    """Natural and PGD accuracy on test images, during the run and at its end."""

    every_steps: StepsOrNever = 100
    """Training steps between evaluations; 0: only at the end."""
    num_samples: Samples = 500
    """Test images of an evaluation during the run, and as many of those held out; fewer than all
    are the same ones every time."""
    final_samples: Samples | None = None
    """Test images of the evaluation at the end; null: all."""
    num_steps: Annotated[AtLeastOne, Field(le=10**5)] = 40
    """PGD steps."""
    step_size: StepSize | None = None
    """PGD step size in pixels of [0, 1], made for one norm and one epsilon; null: one that fits
    any, that of attacks with the default `relative_step_size`."""
    batch_size: Annotated[AtLeastOne, Field(le=10**6)] = 500
    """Test images per batch; each batch has its own random start. On a CPU at most 128 of them pass
    through the network at once: what it draws at random, and last digits, depend on both."""
    precision: Precision = "float32"
    """In which networks judge and are attacked; bfloat16: by autocast."""
    branch: Literal["adversarial", "natural"] = "adversarial"
    """Of a model with `model.mixture_batch_norm`: which batch norm `mpiadv evaluate`, and
    evaluations during the run, judge and attack; the one at the end is of both."""


class GuardConfig(Section):
    """Watches for catastrophic overfitting: the same training images under PGD, time and again."""

    every_steps: StepsOrNever = 0
    """Training steps between two measurements; 0: never."""
    num_steps: Annotated[AtLeastOne, Field(le=10**5), _GUARDED] = 5
    """PGD steps."""
    num_samples: Annotated[Samples, _GUARDED] = 256
    """Training images that are attacked, the same ones every time."""
    largest_fall: Annotated[Fraction, _GUARDED] = 0.2
    """How far their accuracy may lie below its highest so far."""
    action: Annotated[Literal["warn", "stop"], _GUARDED] = "warn"
    """warn: a fall is told and logged; stop: the run ends, with the weights of the last measurement
    before the fall as `good.pt`."""


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
