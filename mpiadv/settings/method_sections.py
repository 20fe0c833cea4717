"""The sections of a method: attack, objective, optimiser, and how they change. Typed, frozen."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mpiadv.process.errors import shown
from mpiadv.settings.choices import Climbed, Norm
from mpiadv.settings.numbers import Count, Fraction, Number, Positive, Radius, StepSize
from mpiadv.settings.pixels import RELATIVE_STEP_SIZE
from mpiadv.settings.section import AttackSteps, Section, Steps, StepsOrNever, Text
from mpiadv.settings.unread import ReadWith, read_with_name
from mpiadv.storage.run_folder import EMA, RAW

_M_PLUS = read_with_name("m_plus")
_FRIENDLY = read_with_name("friendly")
_PIECEWISE = read_with_name("piecewise")
_WEIGHED = read_with_name("trades", "mart", "alp", "score", "grad_align")
_SMOOTHED = read_with_name("adversarial", "trades", "alp", "score", "grad_align")
_DECAYED = ReadWith("weight_decay above 0", lambda optimizer: optimizer.weight_decay > 0)
_SGD = read_with_name("sgd")
_MULTISTEP = read_with_name("multistep")
_WARMED = read_with_name("constant", "multistep", "cosine")
_STEP_SIZE_IS_NULL = ReadWith(
    "step_size=null",
    lambda attack: (
        attack.step_size is None
        or any(each.epsilon and each.step_size is None for each in attack.further or ())
    ),
)
_START_IS_NULL = ReadWith("start=null", lambda attack: attack.start is None)
_SEVERAL = ReadWith("further set", lambda attack: attack.further is not None)
_DECAY = ReadWith("decay", lambda average: average.decay is not None)


class ThreatModel(Section):
    """What an attacker may do to images, beside `attack.norm` and `attack.epsilon`."""

    name: Norm | Literal["rotation_translation"]
    """A norm, of a ball; or rotations and shifts (Engstrom et al. 2019)."""
    epsilon: Radius | None = None
    """Radius of the ball, in pixels of [0, 1]."""
    step_size: StepSize | None = None
    """Step size in pixels of [0, 1]; null: `attack.relative_step_size * epsilon / num_steps`."""
    degrees: Annotated[Number, Field(ge=0, le=360)] = 30.0
    """Largest rotation, either way (rotation_translation)."""
    pixels: Annotated[Number, Field(ge=0, le=10_000)] = 3.0
    """Largest shift in each direction, in pixels (rotation_translation)."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        is_ball, usual = self.name != "rotation_translation", ThreatModel.model_fields
        if is_ball and self.epsilon is None:
            raise ValueError(
                f"attack.further: {self.name} has no radius: add epsilon, as in "
                f"[{{name: {self.name}, epsilon: 1.0}}]"
            )
        others = ("degrees", "pixels") if is_ball else ("epsilon", "step_size")
        given = [key for key in others if getattr(self, key) != usual[key].default]
        if given:
            raise ValueError(f"attack.further: {self.name} takes no {given[0]}: leave it out")
        return self


def _require_list_of_some(threats: Any) -> Any:
    if threats is None or (isinstance(threats, list | tuple) and threats):
        return threats
    raise ValueError(
        f"attack.further={shown(threats)}: expected threat models, as in "
        "attack.further='[{name: l2, epsilon: 1.0}]', or null"
    )


_SOME = BeforeValidator(_require_list_of_some)


class AttackConfig(Section):
    """The attack that crafts the training batches."""

    name: Text = "pgd"
    """A registered attack (pgd; fgsm, ufgsm and nfgsm, of a single step; friendly, pgd that stops
    at images once misclassified; cw, pgd on the margin), or the dotted name of a function
    (`my_package.module:function`)."""
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
    tau: Annotated[Count, Field(le=10**5), _FRIENDLY] = 0
    """Attack steps that an image takes although it is misclassified, not necessarily in a row
    (friendly)."""
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
    further: Annotated[list[ThreatModel] | None, Field(max_length=16), _SOME] = None
    """Threat models beside `norm` and `epsilon`, such as `[{name: l2, epsilon: 1.0},
    {name: rotation_translation, degrees: 30, pixels: 3}]`; null: none. Evaluations during the run
    are of `norm` and `epsilon` alone."""
    combine: Annotated[Literal["worst", "average", "random"], _SEVERAL] = "worst"
    """worst: of each image the one of the highest loss is trained on; average: all are (Tramèr and
    Boneh 2019); random: a batch is under one of them, drawn by its ticket."""
    sources: list[Text] = Field(default_factory=list)
    """Folders of finished runs: a batch is crafted on one of their networks, which stay as they
    are, or on the one being trained, drawn by its ticket (Tramèr et al. 2018)."""


class AttackScheduleConfig(Section):
    """How the settings of the attack change during the run. See docs/methods.md."""

    name: Text = "constant"
    """constant: as in `attack`; piecewise: `first_steps`, then `later_steps` from `milestones` on;
    amata: from `first_steps` to `attack.num_steps`, evenly over the run (Ye et al. 2021); m_plus:
    from `first_steps` one more after an epoch in which gradients grew (Wang et al. 2021). No attack
    takes more than `attack.num_steps`."""
    first_steps: Annotated[AttackSteps, read_with_name("piecewise", "amata", "m_plus")] = 0
    """Attack steps at first, with m_plus in the first epoch."""
    milestones: Annotated[list[Steps], _PIECEWISE] = Field(default_factory=list)
    """Training steps from which on versions bring the next number of `later_steps` (piecewise);
    attacks take it when they begin on such a version, up to `staleness.max_staleness` later."""
    later_steps: Annotated[list[AttackSteps], _PIECEWISE] = Field(default_factory=list)
    """Attack steps from each of the `milestones` on (piecewise)."""
    later_tau: Annotated[list[AttackSteps], _PIECEWISE] = Field(default_factory=list)
    """`attack.tau` from each of the `milestones` on (piecewise); empty: as it is."""
    gamma: Annotated[Positive, _M_PLUS] = 1.01
    """How much the gradient magnitude of an epoch has to grow for one more step (m_plus)."""


class ObjectiveConfig(Section):
    """What training minimises."""

    name: Text = "adversarial"
    """A registered objective. Of adversarial images: adversarial (cross-entropy), margin (hinge).
    Of natural ones and theirs: trades, mart, alp, score; grad_align, for single-step attacks."""
    beta: Annotated[Number, Field(ge=0, le=1e6), _WEIGHED] = 6.0
    """Weight of what keeps predictions, or gradients, together; left out: mart and score 5, alp
    0.5, grad_align 0.2."""
    label_smoothing: Annotated[Fraction, _SMOOTHED] = 0.0
    """Share of each label that is spread over all classes (not with mart, margin)."""
    clean_fraction: Fraction = 0.0
    """Share of each batch that stays natural."""

    @model_validator(mode="before")
    @classmethod
    def _usual_weight(cls, given: Any) -> Any:
        """Each paper has a weight of its own."""
        if not isinstance(given, dict) or "beta" in given:
            return given
        weights = {"mart": 5.0, "alp": 0.5, "score": 5.0, "grad_align": 0.2}
        usual = weights.get(str(given.get("name")))
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
    """Weight decay."""
    decay_norms_and_biases: Annotated[bool, _DECAYED] = True
    """Whether weight decay is also of parameters of one dimension: of batch norm, and biases."""


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
    warmup_steps: Annotated[StepsOrNever, _WARMED] = 0
    """Training steps in which the rate rises to the full one first, as large batches need it
    (constant, multistep, cosine); 0: none."""


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
