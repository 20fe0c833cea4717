"""CIFAR-10, fetched, verified by checksums and read by torchvision."""

import os
from pathlib import Path

import numpy as np
import torch

from mpiadv.data.checks import require_arguments
from mpiadv.data.download import download, root_of
from mpiadv.data.memory import MemorySource
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig


def load_cifar10(config: DataConfig) -> DataSet:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 3x32x32.

    Raises:
        UserError: files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    require_arguments(config)
    train, class_names = _read_split(config, "train", config.train_samples)
    test, _ = _read_split(config, "test", None)
    image_shape = 3, 32, 32
    return DataSet(
        train=train, test=test, num_classes=10, image_shape=image_shape, class_names=class_names
    )


def is_cifar10_missing(config: DataConfig) -> bool:
    """Whether loading has to download the files first."""
    folder = _folder(config)
    return not os.path.isdir(folder) or not any(folder.iterdir())


def _folder(config: DataConfig) -> Path:
    from torchvision.datasets import CIFAR10

    return root_of(config) / str(CIFAR10.base_folder)


def _read_split(
    config: DataConfig, split: str, num_samples: int | None
) -> tuple[MemorySource, tuple[str, ...]]:
    from torchvision.datasets import CIFAR10

    root, folder = str(root_of(config)), _folder(config)
    if is_cifar10_missing(config):
        download(config, folder, lambda: CIFAR10(root, download=True))
    try:
        # The files are pickles: torchvision opens none whose checksum is not the published one.
        samples = CIFAR10(root, train=split == "train")
    except Exception as error:
        raise UserError(
            f"the files in {folder} are incomplete or corrupt (their checksums are not those of "
            f"CIFAR-10): delete the folder, and run again with data.download=true or copy it again"
        ) from error
    images = torch.from_numpy(np.ascontiguousarray(samples.data.transpose(0, 3, 1, 2)))
    labels = torch.tensor(samples.targets, dtype=torch.int64)
    return MemorySource(images, labels).only(num_samples), tuple(samples.classes)
