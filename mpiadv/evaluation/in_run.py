"""The evaluation that a run makes of itself: its attack, and how lines and logs name it.

Knows no model.
"""

from dataclasses import dataclass
from functools import partial

from mpiadv.attacks import Attack, make_attack, make_attacks
from mpiadv.evaluation.accuracy import Counts
from mpiadv.runlog.rows import HELD_OUT, TEST, TRAIN
from mpiadv.settings import AttackConfig, Config, Precision

_CALLED = {TEST: "test images", HELD_OUT: "images held out", TRAIN: "training images"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a run measures during training: which images, how many at most, under which attack."""

    images: str
    num_samples: int
    attack: Attack
    branch: str
    precision: Precision

    @property
    def attack_name(self) -> str:
        return f"PGD-{self.attack.num_steps} ({_details(self.attack)})"

    @property
    def told(self) -> str:
        """Measurements of which this is the same compare."""
        how = f"{self.attack_name}, {self.branch} batch norm, {self.precision}"
        return f"{how}, on at most {self.num_samples} {_CALLED[self.images]}"

    def describe(self, counts: Counts) -> str:
        """What was seen, in a line."""
        return (
            f"natural {counts.natural_accuracy:.2f} %, {self.attack_name} "
            f"{counts.adversarial_accuracy:.2f} % of {counts.num_samples} {_CALLED[self.images]}"
        )


def measurements(config: Config) -> dict[str, Measurement]:
    """What a run may measure during training, by the name of the images."""
    evaluation, guard = config.evaluation, config.guard
    of = partial(Measurement, branch=evaluation.branch, precision=evaluation.precision)
    own = partial(of, num_samples=evaluation.num_samples, attack=evaluation_attack(config))
    pgd = _pgd(config, guard.num_steps, None)
    return {
        TEST: own(images=TEST),
        HELD_OUT: own(images=HELD_OUT),
        TRAIN: of(images=TRAIN, num_samples=guard.num_samples, attack=pgd),
    }


def evaluation_attack(config: Config) -> Attack:
    """PGD on the training attack's ball with the evaluation's own steps."""
    return _pgd(config, config.evaluation.num_steps, config.evaluation.step_size)


def _pgd(config: Config, num_steps: int, step_size: float | None) -> Attack:
    norm, epsilon = config.attack.norm, config.attack.epsilon
    pgd = AttackConfig(norm=norm, epsilon=epsilon, num_steps=num_steps, step_size=step_size)
    return make_attack(pgd)


def _details(attack: Attack) -> str:
    """What a figure under an attack depends on: the ball, and the step size."""
    return f"{attack.norm} {attack.epsilon:g}, step {attack.step_size:.4g}"


def accuracies(config: Config, counts: Counts) -> dict[str, str]:
    """An evaluation on test images as rows of a report."""
    attack = evaluation_attack(config)
    return {
        "natural accuracy": f"{counts.natural_accuracy:.2f} % of {counts.num_samples} test images",
        f"PGD-{attack.num_steps} accuracy": f"{counts.adversarial_accuracy:.2f} % "
        f"({_details(attack)})",
    }


def step_warnings(config: Config) -> list[str]:
    """A line for each step size that does not fit the run's ball, as where a file's is changed."""
    sizes = [config.attack.step_size]
    sizes += [each.step_size for each in config.attack.further or () if each.epsilon is not None]
    judging = evaluation_attack(config).misfit
    lines = [
        f"the training attack's {attack.misfit}: step_size=null gives fitting steps"
        for attack, size in zip(make_attacks(config.attack), sizes, strict=True)
        if attack.misfit and size is not None
    ]
    if judging and config.evaluation.step_size is not None:
        lines.append(
            f"the evaluation's {judging}, so that its figures flatter the model: "
            "evaluation.step_size=null gives fitting steps"
        )
    return lines
