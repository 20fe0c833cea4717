"""Memory has bounds that follow from the configuration, and does not grow with the steps."""

import gc
import re
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from fake_work import FakeCrafter, FakeLearner, fake_shape
from mpi_runner import REPOSITORY
from recipes import recipe_of
from torch import Tensor, nn

from mpiadv.comm.links import (
    SPARE_BROADCASTS,
    LinkShape,
    ParameterSlot,
    most_parameter_slots,
    plain_memory,
)
from mpiadv.comm.messages import Bytes
from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.comm.world import World
from mpiadv.contract.craft_queue import AttackStep, StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen
from mpiadv.models import FlatState
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device

RULE = StalenessRule(max_staleness=40, final_staleness=4, publish_every=3)
OUTSTANDING = 20
NUM_TICKETS = 400
BATCH_SIZE = 4
SETTINGS = AttackSettings(num_steps=2, epsilon=0.1)


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


class Followed:
    """A data set of noise that knows which of its batches are still in memory."""

    num_samples = 16

    def __init__(self) -> None:
        self._batches: list[weakref.ref[Tensor]] = []

    def prefetch(self, indices: Tensor, *, urgency: int = 0) -> None:
        pass

    def forget(self, indices: Tensor) -> None:
        pass

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images = torch.rand(len(indices), 1, 2, 2)
        self._batches.append(weakref.ref(images))
        return images, torch.as_tensor(indices) % 2

    @property
    def num_given(self) -> int:
        return len(self._batches)

    def in_memory(self) -> list[int]:
        return [number for number, batch in enumerate(self._batches) if batch() is not None]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def finish(crafter: TorchCrafter, slot: ParameterSlot) -> None:
    crafter.start(0, SETTINGS)
    for step in range(SETTINGS.num_steps):
        crafter.run(AttackStep(ticket=0, step=step, version=0), slot)
    crafter.finish(0)


def drop(crafter: TorchCrafter, slot: ParameterSlot) -> None:
    crafter.start(0, SETTINGS)
    crafter.run(AttackStep(ticket=0, step=0, version=0), slot)
    crafter.drop(0)


def probe(crafter: TorchCrafter, slot: ParameterSlot) -> None:
    assert list(crafter.probe(0, SETTINGS, slot))[-1] is not None


@pytest.mark.parametrize("craft", [finish, drop, probe])
def test_batch_leaves_memory_without_the_collector(
    craft: Callable[[TorchCrafter, ParameterSlot], None], no_collector: None
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    recipe = recipe_of(num_samples=16, batch_size=BATCH_SIZE, num_clean=1, natural_every=1)
    slot = ParameterSlot(FlatState(model).num_bytes, plain_memory)
    FlatState(model).pack(torch.from_numpy(slot.values))
    source = Followed()
    crafter = TorchCrafter(recipe, model, source, Device(torch.device("cpu")))
    craft(crafter, slot)
    assert source.num_given == 1
    assert source.in_memory() == []


def test_nothing_that_a_rank_holds_grows_with_the_steps(needs_mpirun: None) -> None:
    completed = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "soak.py"), "--steps", "1500"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    grew = r"(\w+).* grew by (.+) MiB, (.+) files, (.+) threads, (.+) requests in 900 steps"
    told = {role: held for role, *held in re.findall(grew, completed.stdout)}
    assert told.keys() == {"trainer", "attacker"}, completed.stdout
    # A batch lost per step would be 28 MiB, anything else 900 of it.
    for held in told.values():
        mib, *counts = map(float, held)
        assert mib < 6.0 and max(counts) < 100, completed.stdout


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
