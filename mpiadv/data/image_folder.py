"""Folders of image files, one folder per class, decoded when needed. Knows no data set by name."""

import torch
from torch import Tensor

from mpiadv.data.checks import require_arguments
from mpiadv.data.download import root_of
from mpiadv.data.lazy import LazySource, Readers, Sample
from mpiadv.data.patience import read_patiently
from mpiadv.data.picture_files import Listing, list_pictures, oddities, require_same_classes
from mpiadv.data.pictures import read_picture
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError
from mpiadv.process.words import shape_text
from mpiadv.settings import DataConfig

USUAL_THREADS = 2
"""Threads that decode where `data.num_workers` does not say how many."""

_LARGEST_SIZE = 8_192
"""Of a picture, in pixels: one of them takes 200 MB then."""


def load_image_folder(config: DataConfig) -> DataSet:
    """`root/train/CLASS/*` and `root/test/CLASS/*` as RGB, decoded by threads ahead of time.

    With `arguments: {image_size: S}` the shorter side is resized to S pixels and the middle SxS is
    cut out; without, all images must have the same size. The files are in one shuffled order.

    Raises:
        UserError: a folder is missing or empty, the two splits have different classes, or an image
            is damaged (those are found when they are decoded).
    """
    require_arguments(config, known=["image_size"])
    image_size = _image_size(config)
    root = root_of(config)
    train, test = list_pictures(root / "train"), list_pictures(root / "test")
    require_same_classes(root, train.class_names, test.class_names)
    channels, height, width = read_picture(train.path_of(0), image_size).shape
    image_shape = channels, height, width
    readers = Readers(config.threads(USUAL_THREADS))

    def source(listing: Listing) -> LazySource:
        return LazySource(
            lambda index: _decode(listing, index, image_size, image_shape),
            readers,
            num_samples=len(listing.files),
            fingerprint=listing.fingerprint,
            labels=torch.tensor([file.label for file in listing.files]),
        )

    return DataSet(
        train=source(train.only(config.train_samples)),
        test=source(test),
        num_classes=len(train.class_names),
        image_shape=image_shape,
        class_names=train.class_names,
        oddities=oddities(train, test),
    )


def _image_size(config: DataConfig) -> int | None:
    size = config.arguments.get("image_size")
    is_whole = isinstance(size, int) and not isinstance(size, bool)
    if size is None or (is_whole and 0 < size <= _LARGEST_SIZE):
        return size
    raise UserError(
        f"data.arguments.image_size={size!r}: expected a whole number of pixels above 0, at most "
        f"{_LARGEST_SIZE:,}"
    )


def _decode(
    listing: Listing, index: int, image_size: int | None, image_shape: tuple[int, int, int]
) -> Sample:
    path = listing.path_of(index)
    image: Tensor = read_patiently(lambda: read_picture(path, image_size), f"image {path}")
    if image.shape != image_shape:
        raise UserError(
            f"image {path} is {shape_text(image.shape)}, the first one "
            f"{shape_text(image_shape)}: give all one size with data.arguments.image_size"
        )
    return image, listing.files[index].label
