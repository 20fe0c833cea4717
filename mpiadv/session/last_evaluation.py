"""The last evaluation of a run, shared out over all ranks."""

import numpy as np
import torch
from torch import nn

from mpiadv.evaluation import Counts, evaluate
from mpiadv.evaluation.in_run import evaluation_attack
from mpiadv.models import FlatState
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.session.setup import Setup
from mpiadv.storage.run_folder import RAW


def evaluate_together(setup: Setup, model: nn.Module, weights: str) -> Counts:
    """Final accuracy on the test set, its batches shared out over all ranks, on rank 0.

    `weights` are what rank 0 has in its model; all others have them afterwards, whatever they had.

    Rank 0 does the share of a rank that is lost, or cannot read its images, as well: it meets the
    same fault, or does not. The others get their own counts.

    Raises:
        UserError: images are not what they should be, on rank 0.
        UnreadableError: images could not be read for a while, on rank 0.
    """
    # All have the raw ones already where versions travelled as they are.
    if weights != RAW or setup.recipe.wire_dtype != "float32":
        _take_exactly(setup, model)
    world = setup.world
    try:
        with world.at_work():
            mine = _evaluate_share(setup, model, world.rank)
    except (UserError, UnreadableError):
        if world.is_trainer:
            raise
        mine = Counts(rows=np.zeros(0))
    if not world.is_trainer:
        world.collect(mine.rows)
        return mine
    parts = [
        _evaluate_share(setup, model, rank).rows if part is None else part
        for rank, part in enumerate(world.collect(mine.rows))
    ]
    return Counts(rows=np.sum(parts, axis=0))


def _take_exactly(setup: Setup, model: nn.Module) -> None:
    """Give every rank rank 0's model bit by bit."""
    state = FlatState(model)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8, device=setup.device.torch)
    state.pack(flat)
    values = flat.cpu().numpy()
    setup.world.spread(values)
    state.unpack(torch.from_numpy(values).to(setup.device.torch))


def _evaluate_share(setup: Setup, model: nn.Module, rank: int) -> Counts:
    config = setup.config.evaluation
    (counts,) = evaluate(
        [model],
        setup.data.test,
        evaluation_attack(setup.config),
        seed=setup.config.seed,
        num_samples=config.final_samples or setup.data.test.num_samples,
        batch_size=config.batch_size,
        precision=setup.config.training.precision,
        share=(rank, setup.world.size),
    )
    return counts
