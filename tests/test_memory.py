"""Memory has bounds that follow from the configuration, and does not grow with the steps."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from fake_work import FakeCrafter, FakeLearner, fake_shape
from mpi_runner import REPOSITORY

from mpiadv.comm.links import SPARE_BROADCASTS, LinkShape, plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.dispatch import Dispatcher, StalenessMode
from mpiadv.engine.attacker import Attacker
from mpiadv.engine.trainer import Trainer
from mpiadv.tickets import AttackSettings, StalenessRule

if TYPE_CHECKING:  # loading MPI here would start it in the process that runs mpirun
    from mpiadv.comm.world import World

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
    from mpiadv.comm.world import World

    monkeypatch.setenv("MPIADV_SHM_DISABLE", "0" if is_shared else "1")
    world, allocate = World(), Counting()
    shape = fake_shape(RULE, OUTSTANDING)
    if world.is_trainer:
        _train(world, shape, allocate)
    else:
        _craft(world, shape, allocate)
    num_batches = allocate.sizes.pop(shape.batch.num_bytes)
    (num_versions,) = allocate.sizes.values()
    if world.is_trainer:
        assert world.size < num_batches <= RULE.max_staleness + 1
        # Readers may be a little behind the trainer in letting go of a version.
        assert num_versions <= RULE.num_versions + SPARE_BROADCASTS * (1 + is_shared)
    else:
        assert num_batches <= OUTSTANDING
        assert num_versions <= RULE.num_versions + 1 + is_shared * SPARE_BROADCASTS


def test_resident_size_does_not_grow_with_the_steps(needs_mpirun: None) -> None:
    completed = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "soak.py"), "--steps", "1500"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    told = dict(re.findall(r"(\w+) grew by (\S+) MiB in 900 steps", completed.stdout))
    assert told.keys() == {"trainer", "attacker"}, completed.stdout
    # A lost batch per step would be 28 MiB.
    assert all(float(growth) < 6.0 for growth in told.values()), completed.stdout


def _settings_at(step: int) -> AttackSettings:
    return AttackSettings(num_steps=4, epsilon=0.1)


def _train(world: "World", shape: LinkShape, allocate: Counting) -> None:
    link = world.trainer_link(shape, allocate, allocate.pin)
    trainer = Trainer(
        dispatcher=Dispatcher(
            RULE, attackers=link.attackers, outstanding=OUTSTANDING, num_tickets=NUM_TICKETS
        ),
        link=link,
        learner=FakeLearner(RULE, lambda: False),
        crafter=FakeCrafter(lambda: False),
        mode=StalenessMode.FIXED,
        settings_at=_settings_at,
        on_step=lambda record: None,
        on_event=lambda kind, text: None,
        deadline_seconds=60.0,
    )
    trainer.publish_due()
    trainer.shut_down(trainer.run(lambda: False))


def _craft(world: "World", shape: LinkShape, allocate: Counting) -> None:
    attacker = Attacker(
        rule=RULE,
        mode=StalenessMode.FIXED,
        link=world.attacker_link(shape, allocate, allocate.pin),
        crafter=FakeCrafter(lambda: False),
        host="host",
        deadline_seconds=60.0,
    )
    attacker.run()
