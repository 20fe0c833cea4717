"""The evaluation that a run makes of itself: its attack, and how lines and logs name it.

Knows no model and no log.
"""

from mpiadv.attacks import Attack, make_attack
from mpiadv.evaluation.accuracy import Counts
from mpiadv.settings import AttackConfig, Config


def evaluation_attack(config: Config) -> Attack:
    """PGD on the training attack's ball with the evaluation's own steps."""
    pgd = AttackConfig(
        norm=config.attack.norm,
        epsilon=config.attack.epsilon,
        num_steps=config.evaluation.num_steps,
        step_size=config.evaluation.step_size,
    )
    return make_attack(pgd)


def short_name(config: Config) -> str:
    """The evaluation's attack in a word."""
    return f"PGD-{config.evaluation.num_steps}"


def attack_details(config: Config) -> str:
    """What a figure under that attack depends on: the ball, and the step size."""
    attack = evaluation_attack(config)
    return f"{config.attack.norm} {attack.epsilon:g}, step {attack.step_size:.4g}"


def attack_name(config: Config) -> str:
    """The evaluation's attack with all that its figures depend on."""
    return f"{short_name(config)} ({attack_details(config)})"


def describe(config: Config, counts: Counts) -> str:
    """An evaluation in a line."""
    return (
        f"natural {counts.natural_accuracy:.2f} %, {attack_name(config)} "
        f"{counts.adversarial_accuracy:.2f} % of {counts.num_samples} test images"
    )


def accuracies(config: Config, counts: Counts) -> dict[str, str]:
    """An evaluation as rows of a report."""
    return {
        "natural accuracy": f"{counts.natural_accuracy:.2f} % of {counts.num_samples} test images",
        f"{short_name(config)} accuracy": f"{counts.adversarial_accuracy:.2f} % "
        f"({attack_details(config)})",
    }


def step_warnings(config: Config) -> list[str]:
    """A line for each step size that does not fit the run's ball, as where a file's is changed."""
    crafting = make_attack(config.attack).misfit
    judging = evaluation_attack(config).misfit
    lines = []
    if crafting and config.attack.step_size is not None:
        lines.append(f"the training attack's {crafting}: attack.step_size=null gives fitting steps")
    if judging and config.evaluation.step_size is not None:
        lines.append(
            f"the evaluation's {judging}, so that its figures flatter the model: "
            "evaluation.step_size=null gives fitting steps"
        )
    return lines
