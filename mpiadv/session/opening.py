"""What a run says of itself at the start, on the screen and in the log."""

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from mpiadv.attacks import attack_num_steps, make_attack
from mpiadv.data import split_line
from mpiadv.evaluation.in_run import step_warnings
from mpiadv.methods.objectives import make_objective
from mpiadv.process.errors import printable, shown
from mpiadv.process.words import counted, shape_text
from mpiadv.session.same_run import differences
from mpiadv.session.setup import Setup
from mpiadv.settings import AttackConfig, Config, dump_config
from mpiadv.settings.unread import unread_settings
from mpiadv.storage.checkpoint import Checkpoint

PACKAGES = ("mpiadv", "torch", "torchvision", "numpy", "mpi4py", "h5py")


def opening_lines(
    setup: Setup, checkpoint: Checkpoint | None, changes: Sequence[str], found: Sequence[str]
) -> list[str]:
    """What is trained, on what, by whom, and what is odd about it.

    `changes` are those of the data since the checkpoint, `found` is what there was on disk.
    """
    config = setup.config
    several = setup.division.num_teams
    num_attackers = len(setup.world.roster.attackers) + 1 - several
    trainers = f"{several} trainers, " if several > 1 else ""
    attackers = f"{trainers}{counted(num_attackers, 'attacker')}"
    lines = [
        f"mpiadv: training {config.model.name} on {config.data.name} for "
        f"{config.training.num_steps} steps; {attackers}, {setup.device.torch.type}, "
        f"{counted(setup.threads, 'thread')} per rank",
        f"method: {'; '.join(_method(setup))}",
    ]
    odd = (
        *unread_settings(config),
        *_own_number_of_steps(config),
        *_other_climb(setup),
        *_unreached(config),
        *_idle_branch(setup),
        *_too_many(setup),
        *_no_gpu_to_capture(setup),
        *step_warnings(config),
    )
    lines += [f"warning: {text}" for text in odd]
    lines += found
    if checkpoint is not None:
        here = differences(checkpoint, setup.numerics)
        lines += [f"warning: {change}" for change in (*here, *changes)]
    data = setup.data
    splits = {"train": data.train, "held out": data.held_out, "test": data.test}
    lines += [split_line(name, source, data) for name, source in splits.items() if source]
    lines += [f"warning: {doubt}" for doubt in setup.doubts]
    return [printable(line) for line in lines]


def _method(setup: Setup) -> list[str]:
    """What makes the method that the run trains by, as far as names tell it."""
    config, attack = setup.config, setup.recipe.attack
    further = [
        f"{each.name}{'' if each.epsilon is None else f' {each.epsilon:g}'}"
        for each in attack.further or ()
    ]
    threats = ", ".join([f"{attack.norm} {attack.epsilon:g}", *further])
    combined = f" ({attack.combine})" if further else ""
    schedule, num_steps = config.attack_schedule.name, attack_num_steps(attack)
    num_clean = setup.recipe.num_clean
    chosen = {
        f"{schedule} schedule": schedule != "constant",
        f"also on {', '.join(attack.sources)}": bool(attack.sources),
        f"training step {config.training.step}": config.training.step != "ordinary",
        "all attack steps on the trainer, attackers decode and augment": (
            setup.recipe.rule.trainer_steps >= num_steps > 0
            and len(setup.world.roster.attackers) > 0
        ),
        f"{config.training.tickets_per_step} batches a step": config.training.tickets_per_step > 1,
        f"{100 * num_clean / config.data.batch_size:g} % natural": num_clean > 0,
        "two batch norms": config.model.mixture_batch_norm,
        "CutMix": config.data.cutmix_alpha is not None,
        "RandAugment": config.data.rand_augment_ops > 0,
    }
    return [
        f"objective {config.objective.name}",
        f"attack {attack.name} of {counted(num_steps, 'step')}, {threats}{combined}",
        *(text for text, is_so in chosen.items() if is_so),
    ]


def _other_climb(setup: Setup) -> list[str]:
    """Where attacks climb something else than what the objective is made for."""
    name, loss = setup.config.objective.name, make_attack(setup.recipe.attack).loss
    made_for = make_objective(setup.config.objective).climb
    if loss is None or loss.name == made_for:
        return []
    return [f"attacks climb {loss.name}, and objective.name={name} is made for {made_for}"]


def _unreached(config: Config) -> list[str]:
    """What begins behind the end."""
    steps, per_step = config.training.num_steps, config.training.tickets_per_step
    rule = config.staleness.rule(tickets_per_step=per_step)
    last_version = rule.first_version((steps - 1) * per_step)
    told, milestones = list[str](), config.schedule.milestones
    if milestones and milestones[-1] >= steps:
        told.append(
            f"schedule.milestones={shown(milestones)}: training ends after {steps} steps, before "
            "the last of them"
        )
    milestones = config.attack_schedule.milestones
    if milestones and milestones[-1] > last_version:
        told.append(
            f"attack_schedule.milestones={shown(milestones)}: training ends after {steps} steps, "
            f"before an attack takes up the last of them: use {last_version} or less, as attacks "
            f"are decided up to staleness.max_staleness={rule.max_staleness} steps before"
        )
    if config.training.step == "awp" and config.training.awp_from_step >= steps:
        told.append(
            f"training.awp_from_step={config.training.awp_from_step}: training ends after {steps} "
            "steps, before any weights are moved"
        )
    return told


def _own_number_of_steps(config: Config) -> list[str]:
    """Where the attack takes another number of steps than somebody asked for."""
    asked, usual = config.attack.num_steps, AttackConfig().num_steps
    taken = attack_num_steps(config.attack)
    if asked in (taken, usual):
        return []
    return [f"attack.num_steps has no effect: attack {config.attack.name!r} takes {taken}"]


def _idle_branch(setup: Setup) -> list[str]:
    """Where nothing passes through one of two batch norms."""
    config, num_clean = setup.config, setup.recipe.num_clean
    if not config.model.mixture_batch_norm:
        return []
    if num_clean == setup.recipe.order.batch_size:
        return ["no image trains the batch norm of adversarial images, that attacks go through"]
    if num_clean or make_objective(config.objective).needs_natural:
        return []
    return [
        "no image trains the batch norm of natural images: set objective.clean_fraction above 0, "
        "or an objective of natural images, such as objective.name=alp"
    ]


def _too_many(setup: Setup) -> list[str]:
    """Where there are more attackers than the window feeds."""
    num_attackers, rule = len(setup.division.team.roster.attackers), setup.recipe.rule
    if num_attackers <= rule.window:
        return []
    of_each = " of each trainer" if rule.num_teams > 1 else ""
    return [
        f"max_staleness={rule.max_staleness} lets at most {rule.window} "
        f"attackers{of_each} work at once, {num_attackers} are here: use "
        f"staleness.max_staleness>={-(-num_attackers // rule.team_tickets) - 1} or at most "
        f"{(rule.window + 1) * rule.num_teams} ranks"
    ]


def _no_gpu_to_capture(setup: Setup) -> list[str]:
    if setup.device.is_cuda or not setup.config.training.cuda_graphs:
        return []
    return [f"training.cuda_graphs has no effect on {setup.device.torch.type}"]


def attributes_of(setup: Setup) -> dict[str, str | int | float]:
    """The attributes of the log."""
    versions = {f"version_{name}": _version_of(name) for name in PACKAGES}
    return {
        "config": dump_config(setup.config),
        "seed": setup.config.seed,
        "ranks": setup.world.size,
        "trainers": ",".join(map(str, setup.division.trainer_ranks)),
        "hosts": ",".join(setup.world.roster.hosts),
        "device": str(setup.device.torch),
        **{f"{split}_images": told for split, told in setup.fingerprints.items()},
        "threads": setup.threads,
        "memory_format": setup.memory_format,
        "image_shape": shape_text(setup.data.image_shape),
        "num_classes": setup.data.num_classes,
        **({"sources": ",".join(setup.sources)} if setup.sources else {}),
        "batches_per_epoch": setup.recipe.order.batches_per_epoch,
        "version_python": platform.python_version(),
        "version_mpi": setup.world.library(),
        **versions,
    }


@cache
def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # one rank alone needs no mpi4py
        return "none"
