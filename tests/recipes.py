"""What is to be crafted, for tests of single parts of the engine."""

from typing import Any

from mpiadv.contract.tickets import SampleOrder, StalenessRule
from mpiadv.settings import AttackConfig, DataConfig
from mpiadv.work.recipe import Recipe


def recipe_of(*, num_samples: int, batch_size: int, **changes: Any) -> Recipe:
    """Batches of the default attack, without staleness; `changes` are attributes of the recipe."""
    recipe = {
        "seed": 0,
        "rule": StalenessRule(max_staleness=0, final_staleness=0, publish_every=1),
        "order": SampleOrder(seed=0, num_samples=num_samples, batch_size=batch_size),
        "data": DataConfig(),
        "attack": AttackConfig(),
        "precision": "float32",
        "num_clean": 0,
        "natural_every": 0,
        "keep_natural": False,
        "num_classes": 10,
        "keep_notes": False,
        "draw_nearby": False,
        "wire_dtype": "float32",
    }
    return Recipe(**{**recipe, **changes})
