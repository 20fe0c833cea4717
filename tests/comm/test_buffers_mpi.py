"""Buffers on the way over real MPI: their number follows from the configuration."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from fake_work import FakeCrafter, FakeLearner, fake_shape

from mpiadv.comm.links import SPARE_BROADCASTS, LinkShape, most_parameter_slots, plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.comm.world import World
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen

RULE = StalenessRule(max_staleness=40, final_staleness=4, publish_every=3)
OUTSTANDING = 20
NUM_TICKETS = 400


@dataclass
class Counting:
    """Hands out buffers and counts them by size."""

    sizes: Counter[int] = field(default_factory=Counter)

    def __call__(self, num_bytes: int) -> Bytes:
        self.sizes[num_bytes] += 1
        return plain_memory(num_bytes)

    def pin(self, memory: Bytes) -> None:
        """Count a part of shared memory that is in use."""
        self.sizes[memory.size] += 1


@pytest.mark.parametrize("is_shared", [True, False], ids=["in_place", "as_messages"])
@pytest.mark.mpi(min_size=6)
def test_buffers_stay_within_the_window_and_the_ring_of_versions(
    is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    monkeypatch.setenv(DISABLE_SHARING, "0" if is_shared else "1")
    world, allocate = MpiWorld(), Counting()
    shape = fake_shape(RULE, OUTSTANDING)
    if world.is_trainer:
        _train(world, shape, allocate)
    else:
        _craft(world, shape, allocate)
    num_batches = allocate.sizes.pop(shape.batch.num_bytes)
    (num_versions,) = allocate.sizes.values()
    most = most_parameter_slots(shape, world.size - 1, world.size - 1)
    if world.is_trainer:
        assert world.size < num_batches <= RULE.max_staleness + 1
    else:
        assert num_batches <= OUTSTANDING
    # What readers have not released yet cannot be used again.
    assert num_versions <= (most if is_shared else RULE.num_versions + SPARE_BROADCASTS)


def _settings_at(step: int) -> AttackSettings:
    return AttackSettings(num_steps=4, epsilon=0.1)


def _train(world: World, shape: LinkShape, allocate: Counting) -> None:
    link = world.trainer_link(shape, allocate, allocate.pin)
    trainer = Trainer(
        dispatcher=Dispatcher(
            RULE, attackers=link.attackers, outstanding=OUTSTANDING, num_tickets=NUM_TICKETS
        ),
        link=link,
        learner=FakeLearner(RULE, lambda: False),
        crafter=FakeCrafter(lambda: False),
        mode=StalenessMode.FIXED,
        attack_schedule=Foreseen(_settings_at),
        on_step=lambda record: None,
        on_event=lambda kind, text: None,
        deadline_seconds=60.0,
    )
    trainer.publish_due()
    trainer.shut_down(trainer.run(lambda: False))


def _craft(world: World, shape: LinkShape, allocate: Counting) -> None:
    attacker = Attacker(
        rule=RULE,
        mode=StalenessMode.FIXED,
        link=world.attacker_link(shape, allocate, allocate.pin),
        crafter=FakeCrafter(lambda: False),
        host="host",
        deadline_seconds=60.0,
    )
    attacker.run()
