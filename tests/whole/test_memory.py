"""Memory has bounds that follow from the configuration, and does not grow with the steps."""

import gc
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from mpi_runner import REPOSITORY
from recipes import recipe_of
from torch import Tensor, nn

from mpiadv.comm.links import ParameterSlot, plain_memory
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import AttackSettings
from mpiadv.models import FlatState
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.device import Device

BATCH_SIZE = 4
SETTINGS = AttackSettings(num_steps=2, epsilon=0.1)


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
        [sys.executable, str(REPOSITORY / "benchmarks" / "soak.py"), "--steps", "1000"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    grew = r"(\w+).* grew by (.+) MiB, (.+) files, (.+) threads, (.+) requests in 600 steps"
    told = {role: held for role, *held in re.findall(grew, completed.stdout)}
    assert told.keys() == {"trainer", "attacker"}, completed.stdout
    # A batch lost per step would be 19 MiB, anything else 600 of it.
    for held in told.values():
        mib, *counts = map(float, held)
        assert mib < 6.0 and max(counts) < 100, completed.stdout
