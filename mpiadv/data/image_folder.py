"""Folders of image files, one folder per class, decoded when needed. Knows no data set by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mpiadv.config import DataConfig
from mpiadv.data.checks import require_arguments, shape_text
from mpiadv.data.download import root_of
from mpiadv.data.lazy import LazySource
from mpiadv.data.source import DataSet
from mpiadv.errors import UserError
from mpiadv.tickets import choose_samples

Files = list[tuple[str, int]]


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
    train_files, class_names = _list_files(root / "train")
    test_files, test_names = _list_files(root / "test")
    _require_same_classes(root, class_names, test_names)
    chosen = choose_samples(len(train_files), config.train_samples)
    image_shape = _read(train_files[0][0], image_size).shape
    channels, height, width = image_shape

    def source(files: Files) -> LazySource:
        decode = _decoder(files, image_size, (channels, height, width))
        return LazySource(decode, num_samples=len(files), num_workers=config.num_workers)

    return DataSet(
        train=source([train_files[row] for row in chosen]),
        test=source(test_files),
        num_classes=len(class_names),
        image_shape=(channels, height, width),
        class_names=class_names,
    )


def _image_size(config: DataConfig) -> int | None:
    size = config.arguments.get("image_size")
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0):
        return size
    raise UserError(
        f"data.arguments.image_size={size!r}: expected a whole number of pixels above 0"
    )


def _list_files(folder: Path) -> tuple[Files, tuple[str, ...]]:
    """The image files of a split with their labels, shuffled, and the class names."""
    from torchvision.datasets import ImageFolder

    layout = "expected one folder per class there, with image files in it (see data.root)"
    if not folder.is_dir():
        raise UserError(f"image folder {folder} does not exist: {layout}")
    try:
        listing = ImageFolder(str(folder))
    except OSError as error:
        raise UserError(f"image folder {folder}: {error}; {layout}") from error
    # RandomState: its stream is frozen, that of numpy's newer generators may change.
    order = np.random.RandomState(0).permutation(len(listing.samples))
    return [listing.samples[row] for row in order], tuple(listing.classes)


def _require_same_classes(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    different = sorted(set(train) ^ set(test))
    if different:
        shown = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
        raise UserError(
            f"{root}: train has {len(train)} class folders and test {len(test)}; only one of them "
            f"has {shown}: give both the same class folders"
        )


def _decoder(
    files: Files, image_size: int | None, image_shape: tuple[int, int, int]
) -> Callable[[int], tuple[Tensor, int]]:
    def decode(index: int) -> tuple[Tensor, int]:
        path, label = files[index]
        image = _read(path, image_size)
        if image.shape != image_shape:
            raise UserError(
                f"image {path} is {shape_text(image.shape)}, the first one "
                f"{shape_text(image_shape)}: give all one size with data.arguments.image_size"
            )
        return image, label

    return decode


def _read(path: str, image_size: int | None) -> Tensor:
    """The image in a file: uint8 [3, H, W]."""
    from PIL import Image
    from torchvision.transforms import functional

    try:
        with Image.open(path) as picture:
            image: Any = picture.convert("RGB")
    except Exception as error:
        # PIL raises many types for damaged files: OSError, SyntaxError, ValueError, struct.error.
        reason = str(error).replace(f" {path!r}", "")
        raise UserError(
            f"cannot decode image {path}: {reason}: replace or remove the file"
        ) from error
    if image_size is not None:
        image = functional.center_crop(functional.resize(image, image_size), [image_size] * 2)
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels
