"""What a data set is to the rest of the package. Knows no particular one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TESTED_ON_TRAINING_IMAGES = (
    "every test image is a training image too: accuracy will say nothing of others"
)

Indices = npt.NDArray[np.int64]


class Source(Protocol):
    """The samples of one split."""

    @property
    def num_samples(self) -> int:
        """How many there are."""

    @property
    def fingerprint(self) -> str:
        """The same wherever the same samples are in the same order."""

    @property
    def labels(self) -> Tensor | None:
        """All labels, int64 [N]; None where they are read with the images."""

    def prefetch(self, indices: Indices, *, urgency: int = 0) -> None:
        """Start to decode these samples, to be asked for by `batch` with the same indices.

        Those of a smaller `urgency` come first.
        """

    def forget(self, indices: Indices) -> None:
        """Decode no more of these samples ahead of time, and keep none."""

    def wait(self, indices: Indices, seconds: float) -> bool:
        """Wait no longer than so many seconds; whether `batch` need not wait any more."""

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images float32 [N, C, H, W] in [0, 1] and labels int64 [N], on the source's device.

        They lie `row_by_row`.

        Raises:
            UserError: a file is damaged, or a user's data set gives what it must not.
            UnreadableError: a file could not be read for a while.
        """

    def part(self, indices: Indices) -> "Source":
        """These samples alone, in this order; not for a source that decodes already."""

    def to(self, device: torch.device | str) -> "Source":
        """This source with its batches on `device`."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Training and test samples of the same shape and classes.

    `held_out`: training samples that are in neither, where some are wanted.
    """

    train: Source
    test: Source
    num_classes: int
    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    class_names: tuple[str, ...] | None = None
    held_out: Source | None = None
    oddities: tuple[str, ...] = ()
    """What looked odd while they were loaded, a line each."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers."""
        return self.class_names or tuple(map(str, range(self.num_classes)))


def to_unit_range(images: Tensor) -> Tensor:
    """Pixels in [0, 1], float32, row by row: uint8 is divided by 255, floats stay as they are."""
    if images.dtype == torch.uint8:
        return row_by_row(images.to(torch.float32)).div_(255)
    return row_by_row(images)


def row_by_row(images: Tensor) -> Tensor:
    """The same images, float [N, C, H, W] or one of them, in memory as a message brings them.

    A convolution chooses the order of its sums, and so their bits, by all strides, those of
    dimensions of size 1 too. `Tensor.contiguous` leaves these as they are: it is not enough.
    """
    if images.stride() == torch.empty(images.shape, device="meta").stride():
        return images
    return images.clone(memory_format=torch.contiguous_format)


def spread_over(num_samples: int, num_wanted: int) -> Indices:
    """So many indices, or as many as there are, from the first sample to the last: int64."""
    return np.linspace(0, num_samples - 1, min(num_samples, num_wanted)).astype(np.int64)
