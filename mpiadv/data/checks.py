"""What a data set must hold, and the lines that refuse the rest. Knows no particular data set."""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from mpiadv.process.errors import UserError
from mpiadv.process.words import shape_text
from mpiadv.settings import DataConfig


def require_arguments(config: DataConfig, known: Collection[str] = ()) -> None:
    """Refuse arguments that a registered data set does not take."""
    unknown = sorted(set(config.arguments) - set(known))
    if unknown:
        takes = f"only {', '.join(sorted(known))}" if known else "none"
        raise UserError(
            f"data.arguments: data set {config.name!r} does not take {', '.join(unknown)}; "
            f"it takes {takes}"
        )


def require_labels(
    labels: Iterable[int], num_classes: int, place: str, indices: Iterable[int]
) -> None:
    """Refuse labels outside 0..num_classes - 1; `indices` are theirs in the data set."""
    for label, index in zip(labels, indices, strict=True):
        if not 0 <= label < num_classes:
            raise UserError(
                f"{place}, index {index}: label {label} is outside 0..{num_classes - 1}: correct "
                f"the label, or the number of classes ({num_classes})"
            )


def require_pixels(images: Tensor, place: str, *, first_index: int = 0) -> None:
    """Refuse float images: [N, C, H, W] with pixels outside [0, 1] or not a number."""
    low, high = images.flatten(1).aminmax(dim=1)
    # Negated, so that pixels that are not a number are refused too.
    wrong = torch.nonzero(~((low >= 0) & (high <= 1)))
    if len(wrong):
        row = int(wrong[0, 0])
        raise UserError(
            f"{place}, index {first_index + row}: pixels from {float(low[row]):g} to "
            f"{float(high[row]):g}, expected [0, 1]: scale them, and leave normalisation to "
            f"model.mean and model.std"
        )


def require_augmentable(config: DataConfig, image_shape: tuple[int, int, int]) -> None:
    """Refuse RandAugment on images that are neither grey nor coloured."""
    if config.rand_augment_ops and image_shape[0] not in (1, 3):
        raise UserError(
            f"data.rand_augment_ops={config.rand_augment_ops} changes images of 1 or 3 channels, "
            f"these are {shape_text(image_shape)}: use data.rand_augment_ops=0"
        )


def require_padding(config: DataConfig, image_shape: tuple[int, int, int]) -> None:
    """Refuse a padding that leaves crops without a pixel of the image."""
    shortest = min(image_shape[1:])
    if config.crop_padding >= shortest:
        raise UserError(
            f"data.crop_padding={config.crop_padding} is too much for images of "
            f"{shape_text(image_shape)}: crops may miss the whole image, use at most {shortest - 1}"
        )
