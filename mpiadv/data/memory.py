"""Samples held in memory, as bytes where they came as bytes. Knows no files."""

import torch
from torch import Tensor

from mpiadv.data.source import Indices, to_unit_range
from mpiadv.tickets import choose_samples


class MemorySource:
    """Images uint8 or float32 [N, C, H, W] and labels int64 [N], all on one device."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images = images
        self._labels = labels

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self._labels)

    def only(self, wanted: int | None) -> "MemorySource":
        """So many of these samples, by `choose_samples`; None: all."""
        if wanted is None or wanted >= self.num_samples:
            return self
        rows = torch.from_numpy(choose_samples(self.num_samples, wanted))
        return MemorySource(self._images[rows], self._labels[rows])

    def prefetch(self, indices: Indices) -> None:
        """Nothing: all samples are decoded."""

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images float32 [N, C, H, W] in [0, 1] and labels int64 [N], on the source's device."""
        rows = torch.as_tensor(indices, device=self._images.device)
        return to_unit_range(self._images[rows]), self._labels[rows]

    def to(self, device: torch.device | str) -> "MemorySource":
        """These samples on `device`; bytes travel as bytes."""
        return MemorySource(self._images.to(device), self._labels.to(device))
