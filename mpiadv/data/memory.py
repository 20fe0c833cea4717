"""Samples held in memory, as bytes where they came as bytes, and what tells them from others.

Knows no files.
"""

import hashlib
from math import gcd

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mpiadv.contract.tickets import choose_samples
from mpiadv.data.source import Indices, to_unit_range

Keys = npt.NDArray[np.uint64]

_ROWS_AT_ONCE = 1024


class MemorySource:
    """A `Source` of images uint8 or float32 [N, C, H, W] and labels int64 [N], all on one device.

    `keys` tell each image from others: uint64 [N].
    """

    def __init__(self, images: Tensor, labels: Tensor, keys: Keys | None = None) -> None:
        self.images = images
        self.labels = labels
        self.keys = keys_of(images) if keys is None else keys

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    def only(self, wanted: int | None) -> "MemorySource":
        """So many of these samples, by `choose_samples`; None: all."""
        if wanted is None or wanted >= self.num_samples:
            return self
        return self.part(choose_samples(self.num_samples, wanted))

    def part(self, indices: Indices) -> "MemorySource":
        rows = torch.as_tensor(indices, device=self.images.device)
        return MemorySource(self.images[rows], self.labels[rows], self.keys[indices])

    @property
    def fingerprint(self) -> str:
        """Changes with any pixel, label or place."""
        return fingerprint_of(self.keys, self.labels, self.images.dtype, tuple(self.images.shape))

    def prefetch(self, indices: Indices, *, urgency: int = 0) -> None:
        """Nothing: all samples are decoded."""

    def forget(self, indices: Indices) -> None:
        """Nothing: all samples stay."""

    def wait(self, indices: Indices, seconds: float) -> bool:
        """There is nothing to wait for."""
        return True

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        rows = torch.as_tensor(indices, device=self.images.device)
        return to_unit_range(self.images[rows]), self.labels[rows]

    def to(self, device: torch.device | str) -> "MemorySource":
        """These samples on `device`; bytes travel as bytes."""
        return MemorySource(self.images.to(device), self.labels.to(device), self.keys)


def keys_of(images: Tensor) -> Keys:
    """A number per image, of all its bytes and their places: uint64 [N].

    Two different images have the same one as rarely as any 64 bits agree.
    """
    rows = images.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    words = rows.view(f"u{gcd(rows.shape[1], 8)}")
    factors = np.random.RandomState(0).bytes(8 * words.shape[1])
    weights = np.frombuffer(factors, np.uint64) | np.uint64(1)
    keys = np.empty(len(words), np.uint64)
    for start in range(0, len(words), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        keys[part] = words[part].astype(np.uint64, copy=False) @ weights
    return keys


def fingerprint_of(keys: Keys, labels: Tensor, *facts: object) -> str:
    """Of a split's images by their keys, its labels int64 [N], and whatever else tells it apart."""
    told = hashlib.sha256(repr(facts).encode())
    told.update(keys.tobytes())
    told.update(labels.cpu().numpy().tobytes())
    return told.hexdigest()
