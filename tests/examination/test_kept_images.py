"""The images that ranks keep come together on rank 0, and are shown with all that they tell."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from mpiadv.data.memory import MemorySource
from mpiadv.evaluation.attack_specs import AttackSpec, read_attacks
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.picture import Column, picture
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Assault, attack_share
from mpiadv.examination.conduct import columns
from mpiadv.examination.kept_images import bring_together
from mpiadv.process.errors import DeadlineError

NUM_IMAGES, BATCH_SIZE, SHAPE = 50, 4, (1, 6, 6)
IMAGES = torch.rand(NUM_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))


class _Brighter(nn.Module):
    """Tells the brighter side."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images[..., :3].sum((1, 2, 3)) - images[..., 3:].sum((1, 2, 3))
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class _Ranks:
    """As many ranks as threads, which meet in memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = Barrier(size)
        self.given: list[Any] = [None] * size

    def meet(self, rank: int, value: Any) -> list[Any]:
        self.given[rank] = value
        self.barrier.wait(10)
        all_given = list(self.given)
        self.barrier.wait(10)
        return all_given


class _World:
    def __init__(self, ranks: _Ranks, rank: int, lost: int | None) -> None:
        self.ranks, self.rank, self.size = ranks, rank, ranks.size
        self.is_trainer = rank == 0
        self.roster = SimpleNamespace(name=lambda rank: f"rank {rank}")
        self.lost = lost
        self.most_bytes = 0

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.sum(self.ranks.meet(self.rank, values), axis=0)

    def gather_bytes(self, data: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8] | None]:
        self.most_bytes = max(self.most_bytes, data.size)
        parts = self.ranks.meet(self.rank, data)
        if self.lost is not None:
            parts[self.lost] = None
        return parts if self.is_trainer else []


ATTACKS = read_attacks(
    ("pgd:steps=2", "fgsm:epsilon=0.05"), norm="linf", epsilon=0.02, each_alone=False
)
ASSAULT = Assault(
    target=Classifier(model=_Brighter(), precision="float32"), attacks=ATTACKS, seed=0,
    num_samples=45, batch_size=BATCH_SIZE, keep_examples=True,
)  # fmt: skip


def _brought_together(size: int, piece_bytes: int, lost: int | None = None) -> list[Any]:
    """What each rank gets, and the most bytes that any gave at once."""
    source = MemorySource(IMAGES, _Brighter()(IMAGES).argmax(dim=1))
    found = [attack_share(ASSAULT, source, share=(rank, size)) for rank in range(size)]
    values = np.sum([each.values for each in found], axis=0)
    findings, ranks = Findings(attacks=ATTACKS, values=values), _Ranks(size)
    worlds = [_World(ranks, rank, lost) for rank in range(size)]

    def bring(world: _World) -> npt.NDArray[np.float32] | None:
        return bring_together(
            cast(Any, world), findings, found[world.rank].images,
            batch_size=BATCH_SIZE, image_shape=SHAPE, piece_bytes=piece_bytes,
        )  # fmt: skip

    with ThreadPoolExecutor(size) as threads:
        results: list[Any] = list(threads.map(bring, worlds))
    return [*results, max(world.most_bytes for world in worlds)]


IMAGE_BYTES = 4 * 36


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("piece_bytes", [1, 2 * IMAGE_BYTES + 1, 2**20])
def test_images_of_all_ranks_come_together_in_pieces(size: int, piece_bytes: int) -> None:
    (alone, _), (first, *others, most) = (
        _brought_together(1, 2**20),
        _brought_together(size, piece_bytes),
    )
    assert others == [None] * (size - 1)
    assert most <= max(piece_bytes, IMAGE_BYTES)
    assert 10 < len(alone) < 45
    assert np.array_equal(first, alone)


def test_lost_rank_is_named() -> None:
    with pytest.raises(DeadlineError, match="rank 1 was lost, and its images with it"):
        _brought_together(2, 2**20, lost=1)


def test_least_changed_images_are_shown_first() -> None:
    source = MemorySource(IMAGES, _Brighter()(IMAGES).argmax(dim=1))
    found = attack_share(ASSAULT, source)
    findings = Findings(attacks=ATTACKS, values=found.values)
    images = np.stack([found.images[index] for index in findings.indices[findings.broken_rows]])
    data = SimpleNamespace(names=("dark", "bright"), test=source)
    shown = columns(cast(Any, SimpleNamespace(data=data, assault=ASSAULT)), findings, images)
    changes = [np.linalg.norm(column.adversarial - column.natural) for column in shown]
    assert len(changes) == 8
    assert changes == pytest.approx(sorted(findings.changes[findings.broken_rows])[:8], rel=1e-6)
    assert all({column.label, column.found} == {"dark", "bright"} for column in shown)


def test_picture_tells_attacks_with_their_epsilon_and_true_and_found_labels() -> None:
    column = {
        "natural": np.zeros((1, 4, 4), np.float32),
        "adversarial": np.ones((1, 4, 4), np.float32),
    }
    pgd = AttackSpec(kind="pgd", steps=40, epsilon=8 / 255, norm="l2")
    columns = [
        Column(**column, label="cat", found="dog", attack=pgd),
        Column(**column, label="$5$", found="a" * 40, attack=AttackSpec(kind="grid")),
    ]
    figure = picture(columns, "run_$x$")
    heading = figure.get_suptitle()
    assert "run_$x$" in heading and "pgd-40, epsilon = 0.0313725 in l2" in heading
    assert "rotation-translation, 31 angles to 30 degrees" in heading
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["true: cat", "true: $5$", "found: dog"]
    assert titles[3] == f"found: {'a' * 17}…"
