"""The images that all ranks kept, brought to rank 0 as bytes, in pieces. Knows no model."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mpiadv.comm.world import World
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Example, Examples
from mpiadv.process.errors import DeadlineError

PIECE_BYTES = 2**25
"""What a rank sends at once, at most, or one image."""

Places = npt.NDArray[np.int64]


def bring_together(
    world: World,
    findings: Findings,
    kept: Sequence[Example],
    *,
    batch_size: int,
    image_shape: tuple[int, ...],
    piece_bytes: int = PIECE_BYTES,
) -> Examples | None:
    """The broken images of all ranks, on rank 0; `kept` are this rank's.

    Raises:
        DeadlineError: a rank was lost, and its images with it.
    """
    rows = np.flatnonzero(findings.first_breaker >= 0)
    own = {example.index: example for example in kept}
    indices = findings.indices[rows]
    prediction, change = _told(world, own, indices)
    owners = rows // batch_size % world.size  # as `attack_share` deals them out
    images = np.empty((len(rows) if world.is_trainer else 0, *image_shape), np.float32)
    image_bytes = 4 * int(np.prod(image_shape))
    for pieces in _pieces(owners, world.size, max(1, piece_bytes // image_bytes)):
        mine = [own[index].image for index in indices[pieces[world.rank]].tolist()]
        data = np.stack(mine).reshape(-1).view(np.uint8) if mine else np.empty(0, np.uint8)
        for rank, given in enumerate(world.gather_bytes(data)):
            if given is None:
                raise DeadlineError(f"{world.roster.name(rank)} was lost, and its images with it")
            images[pieces[rank]] = given.view(np.float32).reshape(-1, *image_shape)
    if not world.is_trainer:
        return None
    return Examples(
        index=indices,
        attack=findings.first_breaker[rows],
        prediction=prediction.astype(np.int64),
        change=change,
        images=images,
    )


def _told(
    world: World, own: dict[int, Example], indices: Places
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Prediction and change of each image, on every rank."""
    values = np.zeros((len(indices), 2))
    for row, index in zip(values, indices.tolist(), strict=True):
        if index in own:
            row[:] = own[index].prediction, own[index].change
    prediction, change = world.sum(values).T
    return prediction, change


def _pieces(owners: Places, num_ranks: int, most: int) -> Iterator[list[Places]]:
    """Which places of all images each rank sends, round by round, at most so many at once."""
    of_rank = [np.flatnonzero(owners == rank) for rank in range(num_ranks)]
    for first in range(0, max(map(len, of_rank)), most):
        yield [places[first : first + most] for places in of_rank]
