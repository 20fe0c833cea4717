"""Where fewer samples are taken than there are, those of one frozen permutation are.

Data sets may be sorted by class: the first so many would say that a network which knows one class
knows all.
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import mpiadv.data.user
from mpiadv.attacks import make_attack
from mpiadv.contract.tickets import AttackSettings, choose_samples
from mpiadv.data import load_data
from mpiadv.data.memory import MemorySource
from mpiadv.evaluation import evaluate
from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Assault, attack_share
from mpiadv.session.recorder import Recorder
from mpiadv.settings import AttackConfig, DataConfig, parse_config

NUM_CLASSES, PER_CLASS, WANTED = 4, 30, 40

IMAGES = torch.arange(NUM_CLASSES * PER_CLASS, dtype=torch.uint8).repeat_interleave(4)
IMAGES = IMAGES.reshape(-1, 1, 2, 2)
LABELS = torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS)
"""Sorted by class; every pixel of an image is its index."""

ATTACK = make_attack(
    AttackConfig(epsilon=0.0, num_steps=1), AttackSettings(num_steps=1, epsilon=0.0)
)


class _SaysZero(nn.Module):
    """Knows nothing: whatever it sees is class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(NUM_CLASSES)[0])

    def forward(self, images: Tensor) -> Tensor:
        return self.bias + 0 * images.sum((1, 2, 3))[:, None]


def _share_of_zero(chosen: npt.NDArray[np.int64]) -> float:
    return 100 * float(np.mean(chosen < PER_CLASS))


OPTIONS: dict[str, Any] = {
    "seed": 0, "num_samples": WANTED, "batch_size": 16, "precision": "float32",
}  # fmt: skip


def _evaluated() -> float:
    (counts,) = evaluate([_SaysZero()], MemorySource(IMAGES, LABELS), ATTACK, **OPTIONS)
    return counts.natural_accuracy


def _attacked() -> float:
    attack = AttackSpec(kind="pgd")
    target = Classifier(model=_SaysZero(), precision="float32")
    assault = Assault(target=target, attacks=[attack], seed=0, num_samples=WANTED, batch_size=16)
    found = attack_share(assault, MemorySource(IMAGES, LABELS))
    findings = Findings(attacks=(attack,), values=found.values)
    assert np.array_equal(findings.labels, LABELS[findings.indices].numpy())
    return findings.natural.percent


def _in_snapshots() -> float:
    taken: list[npt.NDArray[np.float32]] = []
    log = SimpleNamespace(snapshot=lambda step, images, originals: taken.append(originals))
    config = parse_config({"attack": {"epsilon": 0.0}, "log": {"snapshot_images": WANTED}})
    data = SimpleNamespace(test=MemorySource(IMAGES, LABELS))
    recorder = Recorder(
        setup=cast(Any, SimpleNamespace(config=config, data=data)),
        log=cast(Any, log),
        learner=cast(Any, SimpleNamespace(model=_SaysZero())),
        safekeeping=cast(Any, None),
        display=cast(Any, None),
        best=cast(Any, None),
        guard=cast(Any, None),
    )  # fmt: skip
    recorder.trainer = cast(Any, SimpleNamespace(pump=lambda: None))
    recorder.take_snapshot(1)
    return _share_of_zero(np.rint(taken[0][:, 0, 0, 0] * 255).astype(np.int64))


EVALUATED: dict[str, Callable[[], float]] = {
    "evaluation": _evaluated,
    "attacks": _attacked,
    "snapshots": _in_snapshots,
}


@pytest.mark.parametrize("accuracy", EVALUATED.values(), ids=EVALUATED.keys())
def test_few_images_of_a_sorted_set_stand_for_all_classes(accuracy: Callable[[], float]) -> None:
    expected = _share_of_zero(choose_samples(len(LABELS), WANTED))
    assert 0 < expected < 45
    assert accuracy() == pytest.approx(expected)


@pytest.fixture(autouse=True)
def sets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Users' data sets, sorted by class, as functions of the module `sorted_sets`."""
    module = ModuleType("sorted_sets")
    samples = list(zip(IMAGES, LABELS.tolist(), strict=True))
    module.pair = lambda root, split: (IMAGES, LABELS)  # type: ignore[attr-defined]
    module.samples = lambda root, split: samples  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sorted_sets", module)
    yield


@pytest.mark.parametrize("room", [2**30, 1], ids=["in_memory", "read_when_needed"])
@pytest.mark.parametrize("name", ["pair", "samples"])
def test_few_training_samples_of_a_sorted_set_hold_all_classes(
    name: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", room)
    config = {"name": f"sorted_sets:{name}", "arguments": {"num_classes": NUM_CLASSES}}
    data = load_data(DataConfig(**config, train_samples=WANTED))
    assert (data.train.num_samples, data.test.num_samples) == (WANTED, len(LABELS))
    images, labels = data.train.batch(np.arange(WANTED))
    chosen = choose_samples(len(LABELS), WANTED)
    assert torch.equal(labels, LABELS[chosen])
    assert torch.equal(images, IMAGES[chosen] / 255)


def test_choice_depends_on_the_number_of_samples_alone_and_a_larger_one_holds_a_smaller() -> None:
    assert choose_samples(10, 4).tolist() == [2, 9, 6, 4]
    few, many = choose_samples(1000, 40), choose_samples(1000, 400)
    assert np.array_equal(many[:40], few)
    assert len(set(many.tolist())) == 400


@pytest.mark.parametrize("wanted", [None, 10, 11])
def test_all_samples_are_in_their_own_order(wanted: int | None) -> None:
    assert choose_samples(10, wanted).tolist() == list(range(10))
