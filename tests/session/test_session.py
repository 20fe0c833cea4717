"""What ranks do together before and after training, each with a stand-in for the others."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from mpiadv.evaluation import Counts
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.session import run as session
from mpiadv.session.same_run import require_same_data
from mpiadv.session.setup import Setup
from mpiadv.settings import load_config
from mpiadv.storage.checkpoint import Checkpoint
from mpiadv.storage.run_folder import RAW

SIZE = 3


def rows_of(rank: int) -> Counts:
    """The rows of a rank's share of six batches."""
    rows = np.zeros((6, 5))
    rows[rank::SIZE] = 1 + rank
    return Counts(rows=rows)


class Others:
    """The world of one rank, where each other rank gave `told`, or its usual share."""

    def __init__(self, rank: int, told: dict[int, Any]) -> None:
        self.rank, self.size, self.is_trainer = rank, SIZE, rank == 0
        self.at_work = nullcontext
        self.given: list[Any] = []
        self._told = told

    def collect(self, values: Any) -> list[Any]:
        self.given.append(values)
        if not self.is_trainer:
            return []
        return [values, *(self._told.get(rank, rows_of(rank).rows) for rank in range(1, SIZE))]


def setup_of(world: Others) -> Setup:
    recipe = SimpleNamespace(wire_dtype="float32")
    return SimpleNamespace(world=world, recipe=recipe)  # type: ignore[return-value]


@pytest.mark.parametrize("error", [UserError("damaged"), UnreadableError("not read")], ids=repr)
def test_rank_that_cannot_read_its_test_images_leaves_its_share_to_rank_0(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_rank_0_can(setup: Setup, model: nn.Module, rank: int, after_batch: Any) -> Counts:
        if setup.world.rank != 0:
            raise error
        return rows_of(rank)

    monkeypatch.setattr(session, "_evaluate_share", only_rank_0_can)
    attacker = Others(2, {})
    session.evaluate_together(setup_of(attacker), nn.Identity(), RAW)
    assert [values.size for values in attacker.given] == [0]
    counts = session.evaluate_together(setup_of(Others(0, {2: None})), nn.Identity(), RAW)
    assert counts.rows[:, 0].tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("rank", [0, 2])
def test_images_that_rank_0_cannot_read_either_are_an_error(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_can(setup: Setup, model: nn.Module, of: int, after_batch: Any) -> Counts:
        if of == rank:
            raise UnreadableError("not read")
        return rows_of(of)

    monkeypatch.setattr(session, "_evaluate_share", nobody_can)
    with pytest.raises(UnreadableError):
        session.evaluate_together(setup_of(Others(0, {rank: None})), nn.Identity(), RAW)


NOW = {"train": "a", "test": "b"}
OTHER_TRAIN = "the train images have changed: the final bits are not those of an undisturbed run"
OTHER_TEST = "the test images have changed: accuracy before and after cannot be compared"

THEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the_same": ({"data": NOW}, []),
    "told_nothing_yet": ({}, []),
    "other_test": ({"data": NOW | {"test": "c"}}, [OTHER_TEST]),
    "other_train": ({"data": NOW | {"train": "c"}}, [OTHER_TRAIN]),
    "both": ({"data": {"train": "c", "test": "c"}}, [OTHER_TEST, OTHER_TRAIN]),
}


@pytest.mark.parametrize(("payload", "told"), THEN.values(), ids=THEN)
def test_checkpoint_of_other_training_images_takes_a_decision(
    payload: dict[str, Any], told: list[str]
) -> None:
    checkpoint = Checkpoint(step=3, path=Path("checkpoint-000000003.pt"), payload=payload)
    allowed = load_config(None, ["data.allow_changes=true"])
    assert require_same_data(allowed, checkpoint, NOW) == told
    if OTHER_TRAIN not in told:
        assert require_same_data(load_config(None), checkpoint, NOW) == told
        return
    with pytest.raises(UserError, match=r"000000003\.pt was trained on other images than those"):
        require_same_data(load_config(None), checkpoint, NOW)
