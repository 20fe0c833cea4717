"""What every rank has before training begins.

Everything that can be wrong with the input is found while preparing, by whichever rank sees it;
then all ranks hear of it and leave together.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from mpiadv.attacks import (
    as_target,
    attack_num_steps,
    keeps_notes,
    make_attack,
    make_attacks,
    rehearse,
    suited,
)
from mpiadv.comm.links import LinkShape
from mpiadv.comm.messages import BatchShape
from mpiadv.comm.world import Division, World
from mpiadv.contract.teams import Layout, place_teams
from mpiadv.contract.tickets import AttackSettings, Purpose, SampleOrder, seed_for
from mpiadv.data import DataSet, doubts_about, load_data, may_download
from mpiadv.loops.trainer import BACKSTOP
from mpiadv.methods.attack_schedules import AttackSchedule, Ground, make_attack_schedule
from mpiadv.methods.objectives import make_objective, num_clean
from mpiadv.models import build_model, check_model, choose_format, lay_out
from mpiadv.models.execution import Executor
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.session.agreement import AgreedError, agree
from mpiadv.session.alike import appearance, differences
from mpiadv.session.fitting import require_fitting
from mpiadv.session.rehearsal import Rehearsal, Sample
from mpiadv.session.source_networks import load_sources
from mpiadv.settings import Config, MemoryFormat
from mpiadv.settings.registry import is_dotted
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device, choose_device, choose_threads, make_deterministic
from mpiadv.work.graphs import choose_executor
from mpiadv.work.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every rank has before the roles part."""

    config: Config
    world: World
    division: Division
    device: Device
    threads: int
    data: DataSet
    recipe: Recipe
    memory_format: MemoryFormat
    """Of weights and features, on this device."""
    sources: tuple[str, ...] = ()
    """Hashes of the networks in `recipe.sources`."""
    doubts: tuple[str, ...] = ()
    """What looks wrong with the data, the model or the device, on rank 0."""

    @property
    def fingerprints(self) -> dict[str, str]:
        held_out = {"held out": self.data.held_out.fingerprint} if self.data.held_out else {}
        return {
            "train": self.data.train.fingerprint,
            "test": self.data.test.fingerprint,
            **held_out,
        }

    @property
    def numerics(self) -> dict[str, str | int]:
        """What bits depend on beside the configuration."""
        return {
            "threads": self.threads,
            "device": self.device.torch.type,
            "memory_format": self.memory_format,
        }

    def new_model(self) -> nn.Module:
        """The freshly initialised model on this rank's device; the same bits on every rank."""
        return lay_out(self._build(), self.memory_format)

    def new_target(self) -> nn.Module:
        """A model that is only attacked: as `new_model`, but its weights may be held cast."""
        return as_target(
            self._build(),
            self.data.image_shape,
            memory_format=self.memory_format,
            precision=self.recipe.precision,
        )

    def _build(self) -> nn.Module:
        return _initial_model(self.config, self.data).to(self.device.torch)

    def new_executor(self, model: nn.Module, tell: Callable[[str], None]) -> Executor:
        """How functions on a model of this rank are run; `tell` hears which are not as wanted."""
        return choose_executor(self.config.training.cuda_graphs, model, self.device, tell)

    def new_crafter(self, model: nn.Module, tell: Callable[[str], None]) -> TorchCrafter:
        """A crafter of this rank, with a model of its own; `tell` as in `new_executor`."""
        execute = self.new_executor(model, tell)
        return TorchCrafter(self.recipe, model, self.data.train, self.device, execute)

    def link_shape(self, parameter_bytes: int) -> LinkShape:
        return LinkShape(
            batch=BatchShape(
                batch_size=self.recipe.order.batch_size,
                num_images=self.recipe.num_images,
                image_shape=self.data.image_shape,
                with_natural=self.recipe.keep_natural,
                with_notes=self.recipe.keep_notes,
                wire_dtype=self.recipe.wire_dtype,
            ),
            parameter_bytes=parameter_bytes,
            # A probe may hold the version of its ticket after the ring has let it go.
            num_versions=self.recipe.rule.num_versions + (self.config.log.fresh_every > 0),
            outstanding=self.config.staleness.credit or self.recipe.rule.window,
        )

    @property
    def largest_settings(self) -> AttackSettings:
        """The largest attack settings that a version may carry."""
        attack = self.recipe.attack
        return AttackSettings(num_steps=attack_num_steps(attack), epsilon=attack.epsilon)

    def new_attack_schedule(self) -> AttackSchedule:
        attack, epoch = self.recipe.attack, self.recipe.order.batches_per_epoch
        ground = Ground(
            config=self.config.attack_schedule,
            attack=attack,
            steps_of=partial(make_attack, attack),
            batches_per_epoch=epoch,
            tickets_per_step=self.recipe.rule.tickets_per_step,
            training_steps=self.config.training.num_steps,
        )
        return make_attack_schedule(ground)


def prepare(config: Config, world: World) -> Setup:
    """What every rank needs before the roles part.

    Raises:
        AgreedError: on all ranks, if the input is bad on any.
    """
    # A short deadline is meant for training: a rank that starts or evaluates may be silent longer.
    world.deadline_seconds = max(world.deadline_seconds, config.deadline_seconds)
    world.watchdog.deadline_seconds = config.deadline_seconds
    division = _divided(config, world)
    if division.among_trainers:
        # One may be as long as a deadline at parting from its team.
        division.among_trainers.deadline_seconds += BACKSTOP * config.deadline_seconds
    device = agree(world, lambda: choose_device(config.training.device, world.local_rank))
    threads = choose_threads(config.training.threads, world.local_size)
    make_deterministic(threads)
    data = load_data_together(config, world)
    doubts = agree(world, lambda: _doubts(data) if world.is_trainer else [])
    setup = agree(world, lambda: _setup(config, world, division, device, threads, data))
    _require_sources_of_all(setup)
    doubts += device.doubts_about(config.training.precision, "training.precision")
    doubts += device.doubts_about(config.evaluation.precision, "evaluation.precision")
    doubts += agree(world, lambda: _check_model(setup))
    doubts += _unlike(setup)
    return dataclasses.replace(setup, doubts=tuple(doubts))


def _doubts(data: DataSet) -> list[str]:
    try:
        return doubts_about(data)
    except UnreadableError as error:
        raise UserError(str(error)) from error


def load_data_together(config: Config, world: World) -> DataSet:
    """The data set, the same on all ranks.

    The first rank of each node loads it first where that may download files, all others together.

    Raises:
        AgreedError: on all ranks, if the data are bad on any, or not the same on all.
    """
    first = agree(world, lambda: _load_if_first(config, world))
    data = agree(world, lambda: first or load_data(config.data))
    for split, source in (("train", data.train), ("test", data.test)):
        _require_same_everywhere(config, world, split, source.fingerprint)
    return data


def _load_if_first(config: Config, world: World) -> DataSet | None:
    if world.local_rank == 0 and may_download(config.data):
        return load_data(config.data)
    return None


def _require_same_everywhere(config: Config, world: World, split: str, fingerprint: str) -> None:
    everywhere = world.gather(fingerprint)
    others = [rank for rank, one in enumerate(everywhere) if one and one != everywhere[0]]
    if others:
        cure = (
            "seed whatever is random in its function"
            if is_dotted(config.data.name)
            else "copy data.root anew"
        )
        raise AgreedError(
            f"data set {config.data.name!r}, split {split!r}: {world.roster.name(others[0])} has "
            f"other samples than {world.roster.name(0)}: all need the same, {cure}"
        )


def _require_sources_of_all(setup: Setup) -> None:
    world = setup.world
    everywhere = world.gather(",".join(setup.sources))
    others = [rank for rank, one in enumerate(everywhere) if one and one != everywhere[0]]
    if others:
        raise AgreedError(
            f"attack.sources: {world.roster.name(others[0])} has other networks than "
            f"{world.roster.name(0)}: all need the same, copy them anew"
        )


def _divided(config: Config, world: World) -> Division:
    """The teams of the job."""
    training = config.training
    if training.trainers > 1:
        world.require_all_there()  # a lost one tells no host
    hosts, layout = world.roster.hosts or [world.host], Layout(training.team_layout)
    return world.divide(agree(world, lambda: place_teams(hosts, training.trainers, layout)))


def _setup(
    config: Config,
    world: World,
    division: Division,
    device: Device,
    threads: int,
    data: DataSet,
) -> Setup:
    rule = config.staleness.rule(tickets_per_step=config.training.tickets_per_step)
    rule = rule.of_team(division.number, division.num_teams)
    order = SampleOrder(
        seed=config.seed, num_samples=data.train.num_samples, batch_size=config.data.batch_size
    )
    objective = make_objective(config.objective)
    attack = suited(config.attack, loss=objective.climb, start=objective.start)
    require_fitting(config, objective, attack, rule)
    sources = load_sources(config, data, device.torch)
    recipe = Recipe(
        seed=config.seed,
        rule=rule,
        order=order,
        data=config.data,
        attack=attack,
        precision=config.training.precision,
        num_clean=num_clean(config.objective, config.data.batch_size),
        num_classes=data.num_classes,
        natural_every=config.log.natural_every,
        keep_natural=objective.needs_natural or rule.trainer_steps > 0,
        keep_notes=rule.trainer_steps > 0 and keeps_notes(attack),
        draw_nearby=objective.needs_nearby,
        wire_dtype=config.training.wire_dtype,
        sources=tuple(source.model for source in sources),
    )
    config.require_lengths(data.image_shape)
    setup = Setup(
        config=config,
        world=world,
        division=division,
        device=device,
        threads=threads,
        data=dataclasses.replace(
            data,
            train=data.train.to(device.torch),
            test=data.test.to(device.torch),
            held_out=data.held_out and data.held_out.to(device.torch),
        ),
        recipe=recipe,
        memory_format=choose_format(
            config.training.memory_format,
            partial(_initial_model, config, data),
            data.image_shape,
            device=device.torch,
            precision=config.training.precision,
        ),
        sources=tuple(source.hash for source in sources),
    )
    setup.new_attack_schedule()  # refused here where it does not fit
    return setup


def _initial_model(config: Config, data: DataSet) -> nn.Module:
    return build_model(
        config.model,
        num_classes=data.num_classes,
        image_shape=data.image_shape,
        seed=seed_for(config.seed, Purpose.MODEL),
    )


def _check_model(setup: Setup) -> list[str]:
    """Rank 0 tries model and attack in every way, the others whether the model takes an image."""
    if not setup.world.is_trainer:
        check_model(setup.new_model(), setup.data.image_shape, setup.data.num_classes)
        return []
    recipe, few = setup.recipe, _sample(setup, 2)
    for attack in make_attacks(recipe.attack):
        rehearse(attack, few.images, few.labels, few.num_classes)
    rehearsal = Rehearsal(
        build=setup.new_model,
        sample=lambda count: _sample(setup, count),
        objective=make_objective(setup.config.objective),
        batch_size=recipe.order.batch_size,
        num_attacked=recipe.order.batch_size - recipe.num_clean,
        trains_under_attack=recipe.attack.batch_norm == "train",
    )
    return rehearsal.run()


def _unlike(setup: Setup) -> list[str]:
    """What to warn of where the model is not the same on all ranks."""
    world = setup.world
    if world.size == 1:
        return []
    shape = setup.data.image_shape
    looks = agree(world, lambda: appearance(setup.new_model(), shape, setup.device.torch))
    everywhere = world.gather(looks)
    names = [world.roster.name(rank) for rank in range(world.size)]
    return agree(world, lambda: differences(everywhere, names))


def _sample(setup: Setup, count: int) -> Sample:
    """The first so many images of the first batch."""
    images, labels = setup.data.train.batch(setup.recipe.order.indices(0)[:count])
    device = setup.device.torch
    return Sample(
        images=images.to(device),
        labels=labels.to(device),
        num_classes=setup.data.num_classes,
        precision=setup.recipe.precision,
    )
