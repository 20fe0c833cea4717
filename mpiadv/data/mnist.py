"""MNIST and Fashion-MNIST: four IDX files each, fetched by torchvision, checked and read here."""

import os
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mpiadv.data.checks import require_arguments
from mpiadv.data.download import download, root_of
from mpiadv.data.memory import MemorySource
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig

IMAGE_SHAPE = (1, 28, 28)
NUM_CLASSES = 10

_TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
"""Of its classes, and of the folders they fill."""

_PREFIXES = {"train": "train", "test": "t10k"}
_CURE = "delete the file, and run again with data.download=true or copy it again"


def load_mnist(config: DataConfig) -> DataSet:
    """60,000 training and 10,000 test images of 1x28x28.

    MNIST (LeCun et al. 1998), or Fashion-MNIST (Xiao et al. 2017).

    Raises:
        UserError: files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    from torchvision import datasets

    require_arguments(config)
    torchvision_set = getattr(datasets, _TORCHVISION_NAMES[config.name])
    folder = _folder(config)
    if is_mnist_missing(config):
        download(config, folder, lambda: torchvision_set(str(root_of(config)), download=True))
    return DataSet(
        train=_read_split(folder, "train", config.train_samples),
        test=_read_split(folder, "test", None),
        num_classes=NUM_CLASSES,
        image_shape=IMAGE_SHAPE,
        class_names=tuple(torchvision_set.classes),
    )


def is_mnist_missing(config: DataConfig) -> bool:
    """Whether loading has to download the files first."""
    folder = _folder(config)
    return not all(os.path.isfile(path) for split in _PREFIXES for path in _paths(folder, split))


def _folder(config: DataConfig) -> Path:
    return root_of(config) / _TORCHVISION_NAMES[config.name] / "raw"


def _paths(folder: Path, split: str) -> tuple[Path, Path]:
    prefix = _PREFIXES[split]
    return folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"


def _read_split(folder: Path, split: str, num_samples: int | None) -> MemorySource:
    images_path, labels_path = _paths(folder, split)
    images = _read_idx(images_path, IMAGE_SHAPE[1:])
    labels = torch.from_numpy(_read_idx(labels_path, ()).astype(np.int64))
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} holds {len(images)} images, but {labels_path} holds {len(labels)} "
            f"labels: {_CURE}"
        )
    wrong = torch.nonzero(labels >= NUM_CLASSES)
    if len(wrong):
        index = int(wrong[0, 0])
        raise UserError(
            f"{labels_path} is corrupt: label {labels[index]} at index {index} is outside "
            f"0..{NUM_CLASSES - 1}: {_CURE}"
        )
    pixels = torch.from_numpy(images).unsqueeze(1)
    return MemorySource(pixels, labels).only(num_samples)


def _read_idx(path: Path, sample_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes: uint8 [N, *sample_shape].

    torchvision itself takes any file that is there, whatever its length.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    num_dimensions = 1 + len(sample_shape)
    start = 4 * (1 + num_dimensions)
    # A file too short for its header reads as zeros there, and is refused with the others.
    magic, num_samples, *sizes = np.frombuffer(content[:start].ljust(start, b"\0"), ">u4").tolist()
    if magic != 0x0800 + num_dimensions or tuple(sizes) != sample_shape:
        raise UserError(f"{path} is not the IDX file it should be ({len(content)} bytes): {_CURE}")
    num_bytes = start + num_samples * prod(sizes)
    if len(content) != num_bytes or num_samples == 0:
        raise UserError(
            f"{path} is truncated or corrupt: {len(content)} bytes, expected {num_bytes}: {_CURE}"
        )
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(-1, *sample_shape)
