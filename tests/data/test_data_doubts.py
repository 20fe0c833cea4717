"""What looks wrong with a data set is told in a line, and what looks right is not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mpiadv.data import DataSet, doubts_about, load_data, split_line
from mpiadv.data.memory import MemorySource, keys_of
from mpiadv.settings import DataConfig

Pair = tuple[Tensor, Tensor]


def pair(num_images: int = 40, *, seed: int = 0, num_classes: int = 4) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num_images, 1, 6, 5), generator=generator, dtype=torch.uint8)
    return images, torch.arange(num_images) % num_classes


def data_set(train: Pair, test: Pair | None = None, num_classes: int = 4) -> DataSet:
    channels, height, width = train[0].shape[1:]
    return DataSet(
        train=MemorySource(*train),
        test=MemorySource(*(test or pair(seed=1))),
        num_classes=num_classes,
        image_shape=(channels, height, width),
    )


def bytes_of_0_and_1() -> DataSet:
    images, labels = pair()
    return data_set((images // 128, labels))


def floats_divided_twice() -> DataSet:
    images, labels = pair()
    return data_set((images / 255 / 255, labels))


def from_one() -> DataSet:
    images, labels = pair()
    return data_set((images, labels + 1), num_classes=5)


def many_missing() -> DataSet:
    return data_set(pair(), num_classes=12)


def one_class() -> DataSet:
    images, labels = pair()
    return data_set((images, labels * 0 + 2))


def only_class() -> DataSet:
    images, labels = pair()
    return data_set((images, labels * 0), num_classes=1)


def test_in_train() -> DataSet:
    images, labels = pair()
    return data_set((images, labels), (images[7:20], labels[7:20]))


def channels_last() -> DataSet:
    images = torch.randint(256, (40, 8, 9, 3), dtype=torch.uint8)
    return data_set((images, torch.arange(40) % 4))


test_in_train.__test__ = False  # type: ignore[attr-defined]

DOUBTS: list[tuple[Callable[[], DataSet], str]] = [
    (bytes_of_0_and_1, "the brightest pixel of 32 training images is 0.00392 of white"),
    (
        floats_divided_twice,
        "the brightest pixel of 32 training images is 0.00392 of white",
    ),
    (from_one, "no training image is of class 0 (of 5): labels are counted from 0"),
    (many_missing, "no training image is of class 4, 5, 6, 7, 8, ... (of 12)"),
    (one_class, "all training images are of one class"),
    (only_class, "all training images are of one class"),
    (test_in_train, "every test image is a training image too"),
    (channels_last, "images have 8 channels of 9x3: if channels come last, give images.permute("),
]


@pytest.mark.parametrize(("given", "expected"), DOUBTS, ids=[one.__name__ for one, _ in DOUBTS])
def test_what_looks_wrong_is_told_in_one_line(given: Callable[[], DataSet], expected: str) -> None:
    (doubt,) = doubts_about(given())
    assert doubt.startswith(expected)
    assert "\n" not in doubt


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: data_set(pair()), id="bytes"),
        pytest.param(lambda: data_set((pair()[0] / 255, pair()[1])), id="floats"),
        pytest.param(lambda: load_data(DataConfig(name="digits")), id="digits"),
        pytest.param(
            lambda: data_set((torch.rand(40, 16, 20, 1), torch.arange(40) % 2), num_classes=2),
            id="signals",
        ),
    ],
)
def test_what_looks_right_is_not_doubted(data: Callable[[], DataSet]) -> None:
    assert doubts_about(data()) == []


def test_many_classes_are_told_in_a_short_line() -> None:
    data = data_set(pair(400, num_classes=100), num_classes=100)
    assert split_line("train", data.train, data) == (
        "train: 400 images in 100 classes, 4 to 4 in each (0: 4, 1: 4, 2: 4, 3: 4, 4: 4, ..., "
        "99: 4)"
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 3, 3), (3, 5, 2)], ids=str)
def test_any_change_of_an_image_or_its_place_changes_its_key(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    images = torch.randint(256, (3000, *shape), dtype=torch.uint8).to(dtype)
    keys = keys_of(images)
    changed = images.clone()
    changed[1, 0, 1, 1] += 1
    changed[2999] = changed[2999].flip(2)
    assert np.flatnonzero(keys_of(changed) != keys).tolist() == [1, 2999]
    assert len(np.unique(keys)) == 3000


def test_fingerprint_tells_labels_order_and_type() -> None:
    images, labels = pair()
    others = [
        (images, labels.flip(0)),
        (images.flip(0), labels),
        (images[:-1], labels[:-1]),
        (images.float(), labels),
        (images.view(-1, 1, 5, 6), labels),
    ]
    told = {MemorySource(*one).fingerprint for one in [(images, labels), *others]}
    assert len(told) == 6
    assert MemorySource(images.clone(), labels.clone()).fingerprint in told
