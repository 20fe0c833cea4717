"""What looks wrong with a data set and may be meant: told, not refused. Knows no data set."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpiadv.data.memory import MemorySource
from mpiadv.data.source import (
    TESTED_ON_TRAINING_IMAGES,
    DataSet,
    Source,
    spread_over,
)
from mpiadv.process.errors import abridged
from mpiadv.process.words import counted

NUM_LOOKED_AT = 32
"""Training images that are looked at."""

DARK = 0.1
"""Images that reach no brighter pixel were hardly meant so."""

COLOURS = (3, 4)
"""Numbers of channels of a picture in colour."""

NUM_NAMED = 5


def doubts_about(data: DataSet) -> list[str]:
    """A line for each thing that is odd about the training images, or the splits together.

    Raises:
        UserError: a sample that was looked at is damaged.
        UnreadableError: one of them could not be read for a while.
    """
    return [
        *data.oddities,
        *_about_pixels(data.train),
        *_about_shape(data.image_shape),
        *_about_labels(data.train.labels, data),
        *_about_splits(data.train, data.test),
    ]


def split_line(name: str, source: Source, data: DataSet) -> str:
    """How many images a split has, and how many of each class where their labels are known."""
    images, classes = counted(source.num_samples, "image"), counted(data.num_classes, "class")
    text = f"{name}: {images} in {classes}"
    if source.labels is None:
        return text
    counts = torch.bincount(source.labels.cpu(), minlength=data.num_classes).tolist()
    shown = [f"{name}: {count:,}" for name, count in zip(data.names, counts, strict=True)]
    if len(shown) > 2 * NUM_NAMED:
        shown[NUM_NAMED:-1] = ["..."]
        return f"{text}, {min(counts):,} to {max(counts):,} in each ({', '.join(shown)})"
    return f"{text} ({', '.join(shown)})"


def _about_pixels(source: Source) -> Iterator[str]:
    images, _ = source.batch(spread_over(source.num_samples, NUM_LOOKED_AT))
    brightest = float(images.max())
    if brightest < DARK:
        yield (
            f"the brightest pixel of {counted(len(images), 'training image')} is {brightest:.3g} "
            "of white: bytes are divided by 255 and 16 bits by 65,535 here, so give bytes up to "
            "255, or floats in [0, 1]"
        )


def _about_shape(image_shape: tuple[int, int, int]) -> Iterator[str]:
    channels, height, width = image_shape
    is_colour = width in COLOURS or (width == 1 and channels == height)
    if is_colour and min(channels, height) > max(COLOURS):
        yield (
            f"images have {channels} channels of {height}x{width}: if channels come last, give "
            f"images.permute(0, 3, 1, 2)"
        )


def _about_labels(labels: Tensor | None, data: DataSet) -> Iterator[str]:
    if labels is None:
        return
    counts = torch.bincount(labels.cpu(), minlength=data.num_classes)
    missing = torch.nonzero(counts == 0).flatten().tolist()
    if len(missing) >= data.num_classes - 1:
        yield "all training images are of one class: there is nothing to tell apart"
    elif missing:
        names = abridged([data.names[label] for label in missing])
        from_one = ": labels are counted from 0" if missing == [0] else ""
        yield (f"no training image is of class {names} (of {data.num_classes:,}){from_one}")


def _about_splits(train: Source, test: Source) -> Iterator[str]:
    if not (isinstance(train, MemorySource) and isinstance(test, MemorySource)):
        return
    if train.images.dtype != test.images.dtype or test.keys[0] not in train.keys:
        return  # nearly always at once
    if set(test.keys.tolist()) <= set(train.keys.tolist()):
        yield TESTED_ON_TRAINING_IMAGES
