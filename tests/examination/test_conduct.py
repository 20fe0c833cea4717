"""What is said before an evaluation begins."""

from types import SimpleNamespace
from typing import Any

import pytest

from mpiadv.examination.conduct import idle_ranks


@pytest.mark.parametrize(("num_ranks", "num_idle"), [(1, 0), (3, 0), (5, 2)])
def test_ranks_without_a_batch_are_told(num_ranks: int, num_idle: int) -> None:
    world: Any = SimpleNamespace(size=num_ranks)
    examined: Any = SimpleNamespace(assault=SimpleNamespace(num_samples=21, batch_size=10))
    told = [
        f"{num_idle} of {num_ranks} ranks have nothing to do: batches of "
        "evaluation.batch_size=10 images are 3"
    ]
    assert idle_ranks(world, examined) == told * bool(num_idle)
