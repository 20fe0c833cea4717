"""Trainer and attackers over real MPI part with nothing pending, and with the defined bits."""

from random import Random

import pytest
from fake_work import FakeCrafter, FakeLearner, fake_shape, parameters_of, sequential_value
from link_ends import OUTSTANDING, RULE

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Farewell, Stop
from mpiadv.comm.world import World
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen

NUM_TICKETS = 40
WAYS = ["in_place", "as_messages", "some_in_place", "out_of_reach", "no_memfd"]
"""In which versions come to attackers."""


def settings_at(version: int) -> AttackSettings:
    return AttackSettings(num_steps=3 + version % 4 // 2, epsilon=0.1)


def train_over_mpi(world: World, stop_at: int | None) -> tuple[Stop, int, dict[int, Farewell]]:
    random = Random(1)
    rest = lambda: random.random() < 0.5  # noqa: E731
    link = world.trainer_link(fake_shape(RULE, OUTSTANDING), plain_memory)
    learner = FakeLearner(RULE, rest)
    trainer = Trainer(
        dispatcher=Dispatcher(
            RULE, attackers=link.attackers, outstanding=OUTSTANDING, num_tickets=NUM_TICKETS
        ),
        link=link,
        learner=learner,
        crafter=FakeCrafter(rest),
        mode=StalenessMode.FIXED,
        attack_schedule=Foreseen(settings_at),
        on_step=lambda record: None,
        on_event=lambda kind, text: None,
        deadline_seconds=60.0,
    )
    trainer.publish_due()
    reason = trainer.run(lambda: trainer.dispatcher.step == stop_at)
    farewells = trainer.shut_down(reason)
    return reason, learner.value, farewells


def craft_over_mpi(world: World) -> tuple[Stop, bytes]:
    random = Random(world.rank)
    link = world.attacker_link(fake_shape(RULE, OUTSTANDING), plain_memory)
    attacker = Attacker(
        rule=RULE,
        mode=StalenessMode.FIXED,
        link=link,
        crafter=FakeCrafter(lambda: random.random() < 0.5),
        host=f"host{world.rank}",
        deadline_seconds=60.0,
    )
    reason, final = attacker.run()
    return reason, final.values.tobytes()


@pytest.mark.parametrize("num_readers", WAYS, indirect=True)
@pytest.mark.mpi(min_size=3)
def test_two_phase_shutdown_leaves_nothing_pending_and_the_bits_of_the_definition(
    num_readers: int,
) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    for stop_at, ends_with in ((17, Stop.INTERRUPTED), (None, Stop.FINISHED)):
        expected = sequential_value(RULE, stop_at or NUM_TICKETS, settings_at)
        if world.is_trainer:
            reason, value, farewells = train_over_mpi(world, stop_at)
            assert (reason, value) == (ends_with, expected)
            hosts = {rank: said.work.host for rank, said in farewells.items()}
            assert hosts == {1: "host1", 2: "host2"}
            assert world.roster.attackers == [1, 2]
        else:
            assert craft_over_mpi(world) == (ends_with, parameters_of(expected))
