"""What every trainer is made of, the lead and those that follow it: learner, links, loop."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.loops.colleagues import SeveralTrainers
from mpiadv.loops.trainer import BACKSTOP, Trainer
from mpiadv.methods.attack_schedules import AttackSchedule
from mpiadv.methods.averages import make_average
from mpiadv.methods.objective import Batch
from mpiadv.methods.objectives import make_objective
from mpiadv.methods.optimizers import make_optimizer, make_schedule
from mpiadv.methods.training_step import Parts
from mpiadv.methods.training_steps import make_training_step
from mpiadv.session.setup import Setup
from mpiadv.settings import Config
from mpiadv.work.learn import TorchLearner

Tell = Callable[[str, str], None]
"""Hears of what is out of the ordinary: its kind, and a text."""


def new_learner(setup: Setup, tell: Callable[[str], None]) -> TorchLearner:
    """The learner of a run that begins; `tell` as in `Setup.new_executor`."""
    config, recipe = setup.config, setup.recipe
    num_steps = config.training.num_steps
    model = setup.new_model()
    execute = setup.new_executor(model, tell)
    optimizer = make_optimizer(config.optimizer, model.parameters())
    parts = Parts(
        config=config.training,
        attack=recipe.attack,
        model=model,
        objective=make_objective(config.objective),
        optimizer=optimizer,
        schedule=make_schedule(config.schedule, optimizer, num_steps=num_steps),
        average=make_average(config.average, model, num_steps=num_steps),
        seed=recipe.seed,
        num_clean=recipe.num_clean,
        execute=execute,
    )
    return TorchLearner(
        recipe,
        make_training_step(parts),
        setup.device,
        tells_gradient=setup.new_attack_schedule().hears_gradient,
        execute=execute,
    )


def new_colleagues(
    setup: Setup, learner: TorchLearner, on_event: Tell = lambda kind, text: None
) -> SeveralTrainers | None:
    """The other trainers, of which `on_event` hears; None where there are none."""
    trainers = setup.division.among_trainers
    if trainers is None:
        return None
    config, allocate = setup.config, setup.device.allocate
    # Whoever follows waits longer than the lead, which saves what there is before it ends the job.
    patience = 1.0 if trainers.is_trainer else BACKSTOP
    return SeveralTrainers(
        trainers.sums(allocate),
        learner,
        trainers.roster,
        num_tickets=setup.recipe.rule.tickets_per_step,
        allocate=allocate,
        deadline_seconds=patience * config.deadline_seconds,
        compares=partial(_is_followed_by_a_save, config),
        on_event=on_event,
    )


def _is_followed_by_a_save(config: Config, step: int) -> bool:
    """Also the last step, and what all have behind it."""
    done, every = step + 1, config.checkpoint.every_steps
    return done >= config.training.num_steps or (every > 0 and done % every == 0)


def new_trainer(
    setup: Setup,
    learner: TorchLearner,
    attack_schedule: AttackSchedule,
    colleagues: SeveralTrainers | None,
    *,
    first_step: int,
    on_step: Callable[[StepRecord], None],
    on_event: Tell,
    tell_eager: Callable[[str], None],
    on_groups: Callable[[Sequence[Sequence[int]]], None] = lambda groups: None,
    on_probe: Callable[[Probed], None] | None = None,
) -> Trainer[Batch]:
    """The loop of a trainer with its team; without `on_probe` nothing is probed.

    `on_groups` hears which ranks read versions together, where there are any attackers.
    """
    config, team, rule = setup.config, setup.division.team, setup.recipe.rule
    with team.at_work():
        model = setup.new_target()
    crafter = setup.new_crafter(model, tell_eager)
    shape = setup.link_shape(learner.parameter_bytes)
    link = team.trainer_link(shape, setup.device.allocate, setup.device.pin)
    if link.attackers:
        on_groups([[link.number(rank) for rank in group] for group in link.groups])
    mode = StalenessMode(config.staleness.mode)
    dispatcher = Dispatcher(
        rule,
        attackers=link.attackers,
        outstanding=config.staleness.credit,
        num_tickets=config.training.num_steps * rule.team_tickets,
        first_ticket=first_step * rule.team_tickets,
        mode=mode,
        trainer_crafts=config.staleness.trainer_crafts,
    )

    def probed(one: Probed) -> None:
        if on_probe is not None:
            on_probe(replace(one, rank=link.number(one.rank)))

    return Trainer(
        dispatcher=dispatcher,
        link=link,
        learner=learner,
        crafter=crafter,
        mode=mode,
        attack_schedule=attack_schedule,
        on_step=on_step,
        on_event=on_event,
        deadline_seconds=config.deadline_seconds,
        overdue_seconds=config.overdue_seconds,
        fresh_every=config.log.fresh_every if on_probe else 0,
        on_probe=probed,
        colleagues=colleagues,
    )
