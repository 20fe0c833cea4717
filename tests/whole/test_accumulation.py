"""Several tickets a training step: against gradients accumulated in a plain loop."""

from pathlib import Path

import pytest
import torch
from end_to_end import settled
from launching import train_alone
from plain_accumulation import WORDS, accumulate_plainly
from small_models import batch_norm


@pytest.mark.parametrize("trainer_steps", [0, 5])
@pytest.mark.parametrize("per_step", [1, 2, 4])
def test_step_is_that_of_the_mean_over_its_tickets(
    tmp_path: Path, per_step: int, trainer_steps: int
) -> None:
    assert batch_norm(num_classes=10, image_shape=(1, 8, 8)), "statistics and dropout"
    words = settled(
        [
            *WORDS, f"training.tickets_per_step={per_step}", f"output={tmp_path / 'run'}",
            f"staleness.trainer_steps={trainer_steps}",
        ]
    )  # fmt: skip
    assert train_alone(words) == accumulate_plainly(words, per_step)


def test_batch_of_a_step_is_that_of_its_tickets_together(tmp_path: Path) -> None:
    """Without statistics of batches and dropout a step is one on all images, but for rounding."""
    weights = []
    for per_step, size in ((1, 32), (4, 8)):
        folder = tmp_path / f"of-{size}"
        words = settled(
            [
                *WORDS, "model.name=small_models:digits", f"training.tickets_per_step={per_step}",
                f"data.batch_size={size}", "attack.num_steps=0", "attack.random_start=false",
                "data.train_samples=320", "optimizer.name=sgd", f"output={folder}",
            ]
        )  # fmt: skip
        train_alone(words)
        weights.append(torch.load(folder / "model.pt", weights_only=True))
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-6), name
