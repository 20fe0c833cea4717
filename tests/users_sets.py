"""Users' data sets, by dotted name: six images of 1x3x4, in every form, and whatever spoils them.

Those that are as documented come first.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

BYTES = torch.arange(6 * 12, dtype=torch.uint8).reshape(6, 1, 3, 4)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
THREADS: set[int] = set()
"""Those that read, or opened, a file."""

Loader = Callable[[str | None, str], Any]


class Listed(list[Any]):
    """A data set of samples, which may have more attributes."""

    classes: list[str]
    num_classes: np.int64


def always(data: Any) -> Loader:
    return lambda root, split: data


def byte_samples(root: str | None, split: str) -> Listed:
    return Listed(zip(BYTES, LABELS.tolist(), strict=True))


pair_of_bytes = always((BYTES, LABELS))
pair_of_floats = always((BYTES.double() / 255, LABELS.int()))
float_samples = always([(image / 255, label) for image, label in zip(BYTES, LABELS, strict=True)])
picture_samples = always(
    [
        (Image.fromarray(image[0].numpy()), np.int64(label))
        for image, label in zip(BYTES, LABELS, strict=True)
    ]
)
tensor_data_set = always(torch.utils.data.TensorDataset(BYTES, LABELS))
arrays = always((BYTES.numpy(), LABELS.numpy()))


by_pixel = always((BYTES.reshape(6, 3, 4, 1).numpy().copy().transpose(0, 3, 1, 2), LABELS.numpy()))


def named(root: str | None, split: str) -> Listed:
    samples = byte_samples(root, split)
    samples.classes = ["a", "b", "c", "d"]
    return samples


def counted(root: str | None, split: str) -> Listed:
    samples = byte_samples(root, split)
    samples.num_classes = np.int64(5)
    return samples


def told(root: str | None, split: str, *, num_classes: int, scale: int = 1) -> Any:
    return BYTES[: scale * num_classes], LABELS[: scale * num_classes]


def rooted(root: str | None, split: str) -> Any:
    assert root == "somewhere" and split in ("train", "test")
    return BYTES, LABELS


_SPLITS_OPENED: list[str] = []


def callable_once(root: str | None, split: str) -> Any:
    assert split not in _SPLITS_OPENED, "once"
    _SPLITS_OPENED.append(split)
    return BYTES, LABELS


class OwnFile(Listed):
    """Opened anew for every sample."""

    def __getitem__(self, index: Any) -> Any:
        THREADS.add(threading.get_ident())
        time.sleep(0.001)
        return super().__getitem__(index)


class SharedFile(Listed):
    """Seeks and reads in two steps, as all data sets on one open file do."""

    place: ClassVar[int] = 0

    def __getitem__(self, index: Any) -> Any:
        THREADS.add(threading.get_ident())
        SharedFile.place = index
        time.sleep(0.001)
        return super().__getitem__(SharedFile.place)


def own_file(root: str | None, split: str) -> Listed:
    return OwnFile(byte_samples(root, split))


def shared_file(root: str | None, split: str) -> Listed:
    THREADS.add(threading.get_ident())
    return SharedFile(byte_samples(root, split))


none = always(None)
no_samples = always([])
three_dimensions = always((BYTES[:, 0], LABELS))
one_hot = always((BYTES, torch.eye(3)[LABELS]))
column = always((BYTES, LABELS[:, None]))
objects = always((np.array(["a.png"]), LABELS))
short_labels = always((BYTES, LABELS[:5]))
float_labels = always((BYTES, LABELS.float()))
bright_sample = always([(image.float(), 0) for image in BYTES])


def spoilt(sample: Any, index: int = 4, only: str = "test") -> Loader:
    def load(root: str | None, split: str) -> Listed:
        samples = byte_samples(root, split)
        if split == only:
            samples[index] = sample
        return samples

    return load


three_values = spoilt((BYTES[0], 1, 2))
text_image = spoilt(("a.jpg", 1))
flat_image = spoilt((BYTES[0, 0], 1))
whole_numbers = spoilt((BYTES[0].long(), 1))
other_shape = spoilt((BYTES[0, :, :2], 1))
float_label = spoilt((BYTES[0], 1.5))
negative_label = spoilt((BYTES[0], -1), only="train")
deep_picture = spoilt((Image.new("F", (4, 3)), 1))


def fails(root: str | None, split: str) -> Any:
    raise OSError("no disk\nsecond line")


class FailingAtTwo(Listed):
    def __getitem__(self, index: Any) -> Any:
        if index == 2:
            raise KeyError("gone")
        return super().__getitem__(index)


def fails_at_two(root: str | None, split: str) -> Listed:
    return FailingAtTwo(byte_samples(root, split))


def normalised(root: str | None, split: str) -> Any:
    return BYTES.float() / 255 - (split == "test") * 0.2, LABELS


def not_a_number(root: str | None, split: str) -> Any:
    images = BYTES / 255
    images[3, 0, 1, 1] = float("nan")
    return images, LABELS


def shapes_differ(root: str | None, split: str) -> Any:
    return (BYTES if split == "train" else BYTES[..., :2]), LABELS


class ImagesAnew(Listed):
    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        return image.roll(int(torch.randint(3, ()))), label


def anew(root: str | None, split: str) -> Listed:
    return ImagesAnew(byte_samples(root, split) * 10)


class LabelsAnew(Listed):
    num_reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.num_reads += 1
        return super().__getitem__(index)[0], self.num_reads % 4


def other_label_anew(root: str | None, split: str) -> Listed:
    return LabelsAnew(byte_samples(root, split))


class Scales(Listed):
    """Writes into its own images, of which the sample is a view."""

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        sample[0].mul_(0.5)
        return sample


def scales_in_place(root: str | None, split: str) -> Listed:
    return Scales((image / 255, label) for image, label in byte_samples(root, split))


def shuffled_pair(root: str | None, split: str) -> Any:
    order = np.random.permutation(6)
    return BYTES[order], LABELS[order]


def shuffled_samples(root: str | None, split: str) -> Any:
    order = torch.randperm(60)
    return [(BYTES.repeat(10, 1, 1, 1)[row], row % 3) for row in order.tolist()]


_CALLS: list[str] = []


def longer_each_time(root: str | None, split: str) -> Any:
    _CALLS.append(split)
    return byte_samples(root, split) * len(_CALLS)
