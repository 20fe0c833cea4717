"""MNIST, Fashion-MNIST and CIFAR-10: fetched and read by torchvision, and checked."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpiadv.data.checks import require_arguments
from mpiadv.data.download import download, root_of
from mpiadv.data.memory import MemorySource
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig

TORCHVISION_NAMES = {"cifar10": "CIFAR10", "fashion_mnist": "FashionMNIST", "mnist": "MNIST"}
"""Of its classes; those of MNIST's kind fill folders of the same names."""

NUM_CLASSES = 10

_MNIST_PREFIXES = {"train": "train", "test": "t10k"}
_CURE = "delete it, and run again with data.download=true or copy it again"


def load_public_set(config: DataConfig) -> DataSet:
    """MNIST, Fashion-MNIST or CIFAR-10: 60,000 or 50,000 training and 10,000 test images.

    MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017) are of 1x28x28, CIFAR-10
    (Krizhevsky 2009) of 3x32x32.

    Raises:
        UserError: files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    require_arguments(config)
    torchvision_set, root = _torchvision_set(config), str(root_of(config))
    if is_missing(config):
        download(config, _folder(config), lambda: torchvision_set(root, download=True))
    read = _read_cifar10 if config.name == "cifar10" else _read_mnist
    train, class_names = read(config, "train")
    test, _ = read(config, "test")
    channels, height, width = train.images.shape[1:]
    return DataSet(
        train=train.only(config.train_samples),
        test=test,
        num_classes=NUM_CLASSES,
        image_shape=(channels, height, width),
        class_names=class_names,
    )


def is_missing(config: DataConfig) -> bool:
    """Whether loading has to download files first."""
    return not all(map(os.path.isfile, _files(config)))


def _torchvision_set(config: DataConfig) -> Any:
    from torchvision import datasets

    return getattr(datasets, TORCHVISION_NAMES[config.name])


def _folder(config: DataConfig) -> Path:
    if config.name == "cifar10":
        return root_of(config) / str(_torchvision_set(config).base_folder)
    return root_of(config) / TORCHVISION_NAMES[config.name] / "raw"


def _files(config: DataConfig) -> Iterator[Path]:
    if config.name != "cifar10":
        for split in _MNIST_PREFIXES:
            yield from _mnist_files(config, split)
        return
    cifar10 = _torchvision_set(config)
    for name, _ in (*cifar10.train_list, *cifar10.test_list):
        yield _folder(config) / name


def _read_cifar10(config: DataConfig, split: str) -> tuple[MemorySource, tuple[str, ...]]:
    try:
        # The files are pickles: torchvision opens none whose checksum is not the published one.
        samples = _torchvision_set(config)(str(root_of(config)), train=split == "train")
    except Exception as error:
        raise UserError(
            f"the files in {_folder(config)} are incomplete or corrupt (their checksums are not "
            f"those of CIFAR-10): delete the folder, and run again with data.download=true or copy "
            f"it again"
        ) from error
    images = torch.from_numpy(np.ascontiguousarray(samples.data.transpose(0, 3, 1, 2)))
    labels = torch.tensor(samples.targets, dtype=torch.int64)
    return MemorySource(images, labels), tuple(samples.classes)


def _mnist_files(config: DataConfig, split: str) -> tuple[Path, Path]:
    folder, prefix = _folder(config), _MNIST_PREFIXES[split]
    return folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"


def _read_mnist(config: DataConfig, split: str) -> tuple[MemorySource, tuple[str, ...]]:
    # Not by torchvision's data set, which takes files of any length.
    of_images, of_labels = _mnist_files(config, split)
    images, labels = _read_idx(of_images, (28, 28)), _read_idx(of_labels, ())
    if len(images) != len(labels) or int(labels.max()) >= NUM_CLASSES:
        raise UserError(
            f"{of_labels} is not of the {len(images)} images in {of_images}: it has {len(labels)} "
            f"labels up to {int(labels.max())}: {_CURE}"
        )
    classes = tuple(_torchvision_set(config).classes)
    return MemorySource(images.unsqueeze(1), labels.to(torch.int64)), classes


def _read_idx(path: Path, sample_shape: tuple[int, ...]) -> Tensor:
    """An IDX file of bytes: uint8 [N, *sample_shape]."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    try:
        content: Tensor = read_sn3_pascalvincent_tensor(str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception:  # of many types, with texts that say nothing of files
        content = torch.empty(0)
    if content.dtype != torch.uint8 or content.shape != (len(content), *sample_shape):
        raise UserError(f"{path} is truncated or corrupt ({path.stat().st_size} bytes): {_CURE}")
    return content
