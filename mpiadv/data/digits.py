"""The handwritten digits that scikit-learn carries: 8x8, nothing to download."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mpiadv.data.checks import require_arguments
from mpiadv.data.memory import MemorySource
from mpiadv.data.source import DataSet
from mpiadv.settings import DataConfig

FILE = "datasets/data/digits.csv.gz"
"""Where they are in scikit-learn's folder."""

NUM_TRAIN = 1437
"""Of 1,797 samples; the other 360 are for testing."""


def load_digits(config: DataConfig) -> DataSet:
    """1,437 training and 360 test images of 1x8x8, always split in the same way.

    Raises:
        UserError: the configuration gives arguments.
    """
    require_arguments(config)
    images, labels = _shuffled()
    train = MemorySource(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    return DataSet(
        train=train.only(config.train_samples),
        test=MemorySource(images[NUM_TRAIN:], labels[NUM_TRAIN:]),
        num_classes=10,
        image_shape=(1, 8, 8),
        class_names=tuple("0123456789"),
    )


def _shuffled() -> tuple[Tensor, Tensor]:
    """All images: uint8 [N, 1, 8, 8], and labels: int64 [N]; writers are mixed by the order."""
    sixteenths, labels = np.split(_rows(), [64], axis=1)
    pixels = np.round(sixteenths * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    # RandomState: its stream is frozen, that of numpy's newer generators may change.
    order = np.random.RandomState(0).permutation(len(labels))
    return torch.from_numpy(pixels[order]), torch.from_numpy(labels[order, 0].astype(np.int64))


@cache
def _rows() -> npt.NDArray[np.float64]:
    """64 values from 0 to 16 and a label, for each sample; read once in a process."""
    # Scikit-learn, which would read its file, takes half as long to import as torch does.
    found = find_spec("sklearn")
    for place in found.submodule_search_locations or () if found else ():
        file = Path(place, FILE)
        if file.exists():
            return np.loadtxt(file, delimiter=",")
    from sklearn import datasets

    values, labels = datasets.load_digits(return_X_y=True)
    return np.column_stack([values, labels])
