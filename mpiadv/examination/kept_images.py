"""The images that all ranks kept, brought to rank 0 as bytes, in pieces. Knows no model."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from mpiadv.comm.world import World
from mpiadv.evaluation.results import Findings
from mpiadv.process.errors import DeadlineError

PIECE_BYTES = 2**25
"""What a rank sends at once, at most, or one image."""

Places = npt.NDArray[np.int64]
Image = npt.NDArray[np.float32]


def bring_together(
    world: World,
    findings: Findings,
    kept: Mapping[int, Image],
    *,
    batch_size: int,
    image_shape: tuple[int, ...],
    piece_bytes: int = PIECE_BYTES,
) -> Image | None:
    """The images that broke the `broken_rows` first, on rank 0: float32 [M, C, H, W].

    `kept` are this rank's, by their index among the test images.

    Raises:
        DeadlineError: a rank was lost, and its images with it.
    """
    rows = findings.broken_rows
    indices = findings.indices[rows]
    owners = rows // batch_size % world.size  # as `attack_share` deals them out
    images = np.empty((len(rows) if world.is_trainer else 0, *image_shape), np.float32)
    image_bytes = 4 * int(np.prod(image_shape))
    for pieces in _pieces(owners, world.size, max(1, piece_bytes // image_bytes)):
        mine = [kept[index] for index in indices[pieces[world.rank]].tolist()]
        data = np.stack(mine).reshape(-1).view(np.uint8) if mine else np.empty(0, np.uint8)
        for rank, given in enumerate(world.gather_bytes(data)):
            if given is None:
                raise DeadlineError(f"{world.roster.name(rank)} was lost, and its images with it")
            images[pieces[rank]] = given.view(np.float32).reshape(-1, *image_shape)
    return images if world.is_trainer else None


def _pieces(owners: Places, num_ranks: int, most: int) -> Iterator[list[Places]]:
    """Which places of all images each rank sends, round by round, at most so many at once."""
    of_rank = [np.flatnonzero(owners == rank) for rank in range(num_ranks)]
    for first in range(0, max(map(len, of_rank)), most):
        yield [places[first : first + most] for places in of_rank]
