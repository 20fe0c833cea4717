"""Claims about devices, as far as a CPU can tell: one that finishes late stands in for a GPU."""

import os
import re
import weakref
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from ordinary_steps import ordinary_step
from recipes import recipe_of
from torch import Tensor, nn

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.contract.tickets import AttackSettings
from mpiadv.loops.bench import settle
from mpiadv.methods.objective import Batch
from mpiadv.models import FlatState
from mpiadv.process.errors import UserError
from mpiadv.work.device import Device, IsComplete, choose_device, choose_threads
from mpiadv.work.learn import TorchLearner


class LateCopy:
    """A copy that reads its source only when it is asked for the third time."""

    def __init__(self, source: Tensor, target: Bytes) -> None:
        self._source, self._target, self._asked = source, target, 0

    def __call__(self) -> bool:
        self._asked += 1
        if self._asked == 3:
            torch.from_numpy(self._target).copy_(self._source)
        return self._asked >= 3


class LateDevice(Device):
    """A CPU that behaves like a GPU: copies and kernels are complete some questions later."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.is_cuda = True
        self.questions_left = 0

    def mark(self) -> None:
        self.questions_left = 5

    def busy(self) -> bool:
        self.questions_left -= 1
        return self.questions_left > 0

    def copy_aside(self, source: Tensor, target: Bytes) -> IsComplete:
        return LateCopy(source, target)


@pytest.fixture
def late_learner() -> TorchLearner:
    step = ordinary_step(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    return TorchLearner(recipe_of(num_samples=8, batch_size=8), step, LateDevice())


def train_once(learner: TorchLearner) -> None:
    images = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    batch = Batch(images=images, labels=torch.arange(8) % 2)
    learner.train(0, batch, AttackSettings(num_steps=0, epsilon=0.0), lambda: None)
    learner.complete()


def packed(learner: TorchLearner) -> bytes:
    flat = torch.zeros(learner.parameter_bytes, dtype=torch.uint8)
    FlatState(learner.model).pack(flat)
    return flat.numpy().tobytes()


def test_snapshot_is_of_its_moment_although_training_goes_on(late_learner: TorchLearner) -> None:
    before = packed(late_learner)
    values = plain_memory(late_learner.parameter_bytes)
    complete = late_learner.snapshot(values)
    train_once(late_learner)
    assert packed(late_learner) != before
    while not complete():
        pass
    assert values.tobytes() == before


def test_second_snapshot_waits_for_the_first_one_to_leave(late_learner: TorchLearner) -> None:
    first, second = (plain_memory(late_learner.parameter_bytes) for _ in range(2))
    before = packed(late_learner)
    late_learner.snapshot(first)
    train_once(late_learner)
    complete = late_learner.snapshot(second)
    assert first.tobytes() == before
    while not complete():
        pass
    assert second.tobytes() == packed(late_learner)


def test_messages_move_on_while_the_device_is_busy(late_learner: TorchLearner) -> None:
    pumped = []
    train_once(late_learner)
    settle(late_learner, lambda: pumped.append(1))
    assert len(pumped) == 5


@pytest.mark.parametrize("answer", ["success", "refused"])
def test_shared_memory_is_pinned_for_good_and_a_refusal_is_no_error(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[tuple[int, int, int]] = []

    def register(*where: int) -> str:
        pinned.append(where)
        return answer

    driver = SimpleNamespace(cudaError=SimpleNamespace(success="success"))
    driver.cudaHostRegister = register
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    memory = plain_memory(4096)
    device, address, kept = LateDevice(), memory.ctypes.data, weakref.ref(memory)
    device.pin(memory)
    del memory
    assert pinned == [(address, 4096, 0)]
    assert kept() is not None


def test_wanting_a_gpu_where_there_is_none_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"no GPU is visible: use training\.device=cpu"):
        choose_device("cuda", 0)
    assert choose_device("auto", 3).torch.type == "cpu"


@pytest.mark.parametrize(
    ("instructions", "precision", "is_told"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "bfloat16", True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32", False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bfloat16", False),
        ({"neon": True, "bf16": False}, "bfloat16", True),
        ({"architecture": "another"}, "bfloat16", False),
    ],
    ids=["x86 without", "float32", "x86 with", "ARM without", "unknown"],
)
def test_bfloat16_without_instructions_for_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
    instructions: dict[str, object],
    precision: Literal["float32", "bfloat16"],
    is_told: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    told = Device(torch.device("cpu")).doubts_about(precision, "evaluation.precision")
    expected = r"this processor has no .* faster here \(evaluation\.precision=float32\)"
    assert [bool(re.fullmatch(expected, each)) for each in told] == [True] * is_told


@pytest.mark.parametrize(
    ("num_cores", "local_size", "threads"),
    [(8, 2, 4), (2, 4, 1), (3, 2, 1)],
    ids=["cores are shared out", "never less than one", "rounded down"],
)
def test_threads_come_from_the_cores_the_node_gives(
    monkeypatch: pytest.MonkeyPatch, num_cores: int, local_size: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(num_cores)))
    assert choose_threads("auto", local_size) == threads
    assert choose_threads(7, local_size) == 7
