"""Normalisation as the first layer of a classifier, so that attacks see pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpiadv.process.errors import UserError


def normalized(
    classifier: nn.Module, *, mean: Sequence[float], std: Sequence[float], num_channels: int
) -> nn.Module:
    """The classifier behind a normalisation.

    Raises:
        UserError: `mean` or `std` have neither one entry nor one per channel.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, num_channels):
            raise UserError(
                f"model.{name} has {len(values)} entries, but the images have {num_channels} "
                f"channel(s): give 1 entry, or one per channel"
            )
    return nn.Sequential(Normalize(mean=mean, std=std), classifier)


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation, per channel; both are buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", _per_channel(mean))
        self.register_buffer("std", _per_channel(std))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
