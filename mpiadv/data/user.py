"""Data sets of a user's own function, by its dotted name: called, checked, held in memory if small.

Knows no particular data set; `user_samples` knows what one sample may be.
"""

import inspect
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpiadv.contract.tickets import choose_samples
from mpiadv.data.checks import require_labels
from mpiadv.data.lazy import LazySource, Readers, Sample
from mpiadv.data.memory import MemorySource, fingerprint_of, keys_of
from mpiadv.data.patience import read_patiently
from mpiadv.data.source import DataSet, Indices, Source, spread_over
from mpiadv.data.user_samples import is_same, read_pair, read_sample, tensor_text
from mpiadv.process.errors import UserError, user_code
from mpiadv.process.words import shape_text
from mpiadv.settings import DataConfig
from mpiadv.settings.registry import import_dotted

MAX_MEMORY_BYTES = 2**30
"""Larger sets are not loaded: their samples are read when needed."""

USUAL_THREADS = 1
"""Threads that call a user's code where `data.num_workers` does not say how many: few people write
data sets that may be called by several at once, and those that may not mix up their samples."""

NUM_READ_TWICE = 32
"""Samples of a split that are read twice: of one that moves images about by a pixel at random, the
chance that all are the same is below 1 in 10,000 even where two of three reads agree."""

LONGEST_CALLED_TWICE_SECONDS = 5.0
"""A function that takes no longer is called once more, to see whether it gives the same."""


@dataclass(frozen=True)
class _Split:
    """One split as the user's function gave it; `images` and `labels` if they are in memory.

    `chosen` are the data set's indices of the samples that are used, and `some` a few of these
    samples, the first one and others all over.
    """

    place: str
    dataset: Any
    chosen: Indices
    some: Sequence[Sample]
    images: Tensor | None
    labels: Tensor | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.some[0][0].shape
        return channels, height, width


def load_user_set(config: DataConfig) -> DataSet:
    """The data set of `function(root=..., split="train" or "test", **arguments)`.

    The function returns a map-style data set of (image, label), or a pair of tensors (images,
    labels): see `user_samples`. It must give the same sample for the same index each time. The
    number of classes is `arguments: {num_classes: ...}`, or the data set's attribute `num_classes`
    or `classes`, or the largest label + 1 (sets in memory only).

    Unless `config` asks for several threads, all of the user's code runs in the same one: its files
    and connections may be good for no other.

    Raises:
        UserError: the function fails, or returns what is described nowhere above.
    """
    function = import_dotted("data set", config.name)
    readers = Readers(config.threads(USUAL_THREADS))
    return readers.submit(lambda: _load(config, function, readers)).result()


def _load(config: DataConfig, function: Callable[..., Any], readers: Readers) -> DataSet:
    train = _load_split(config, function, "train", config.train_samples)
    test = _load_split(config, function, "test", None)
    if train.image_shape != test.image_shape:
        raise UserError(
            f"data set {config.name!r}: images of split 'train' are "
            f"{shape_text(train.image_shape)}, of split 'test' {shape_text(test.image_shape)}: "
            f"give all one shape"
        )
    num_classes = _num_classes(config, train, test)
    return DataSet(
        train=_source(train, num_classes, readers),
        test=_source(test, num_classes, readers),
        num_classes=num_classes,
        image_shape=train.image_shape,
        class_names=_class_names(train, num_classes),
    )


def _load_split(
    config: DataConfig, function: Callable[..., Any], split: str, limit: int | None
) -> _Split:
    place = f"data set {config.name!r}, split {split!r}"
    root = None if config.root is None else os.path.expanduser(config.root)
    arguments = _arguments(config, function)

    def call() -> Any:
        return function(root=root, split=split, **arguments)

    began = time.perf_counter()
    with user_code(place):
        result = call()
    is_quick = time.perf_counter() - began < LONGEST_CALLED_TWICE_SECONDS
    if _is_pair(result):
        result = read_pair(result[0], result[1], place)
    chosen = choose_samples(_num_samples(result, place), limit)
    some = _some(result, chosen, place)
    _require_same_again(result, call if is_quick else None, chosen, some, place)
    images, labels = _held(result, chosen, some[0][0], place)
    return _Split(place, result, chosen, some, images, labels)


def _require_same_again(
    result: Any,
    call: Callable[[], Any] | None,
    chosen: Indices,
    some: Sequence[Sample],
    place: str,
) -> None:
    """Refuse other samples than `some`, read from `result` again and from what `call` gives.

    A call that fails tells nothing: some functions may be called once alone.
    """
    results = [result]
    if call is not None:
        with suppress(Exception):
            results.append(call())
    with user_code(place):
        for each in results:
            again = _some(each, chosen, place) if _length(each) == _length(result) else []
            if len(again) < len(some) or not all(map(is_same, some, again)):
                raise UserError(
                    f"{place}: has other samples when it is read again, or its function called, as "
                    f"every rank and every resume does: leave augmentation to data.crop_padding "
                    f"and data.flip, and seed whatever else is random"
                )


def _some(result: Any, chosen: Indices, place: str) -> list[Sample]:
    """A few of the chosen samples of what the user's function returned."""
    indices = chosen[spread_over(len(chosen), NUM_READ_TWICE)]
    if _is_pair(result):
        images, labels = read_pair(result[0][indices], result[1][indices], place)
        return list(zip(images, labels.tolist(), strict=True))
    samples = (read_sample(result, index, place) for index in indices.tolist())
    # Copies: one that writes into its own images would be compared with itself.
    return [(image.clone(), label) for image, label in samples]


def _length(result: Any) -> int:
    return len(result[0] if _is_pair(result) else result)


def _is_pair(result: Any) -> bool:
    is_two = isinstance(result, tuple | list) and len(result) == 2
    return is_two and isinstance(result[0], Tensor | np.ndarray)


def _arguments(config: DataConfig, function: Callable[..., Any]) -> dict[str, Any]:
    """The configured arguments; `num_classes` only if the function names it, else it is ours."""
    arguments = dict(config.arguments)
    parameters: Mapping[str, Any] = {}
    with suppress(ValueError, TypeError):  # of code that is not Python, as builtins:dict
        parameters = inspect.signature(function).parameters
    if "num_classes" not in parameters:
        arguments.pop("num_classes", None)
    return arguments


def _num_samples(result: Any, place: str) -> int:
    """How many samples there are in what the user's function returned, if it is anything."""
    if not _is_pair(result) and not (hasattr(result, "__len__") and hasattr(result, "__getitem__")):
        raise UserError(
            f"{place}: the function returned {type(result).__name__}, expected a data set with "
            f"__len__ and __getitem__, or a pair of tensors (images, labels)"
        )
    if not _length(result):
        raise UserError(f"{place}: has no samples, expected at least one")
    return _length(result)


def _held(
    result: Any, chosen: Indices, first: Tensor, place: str
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The chosen images and labels in memory; None of both where they are too large."""
    if _is_pair(result):
        images, labels = result
        return result if len(chosen) == len(labels) else (images[chosen], labels[chosen])
    if first.nbytes * len(chosen) >= MAX_MEMORY_BYTES:
        return None, None
    images = torch.empty(len(chosen), *first.shape, dtype=first.dtype)
    labels = torch.empty(len(chosen), dtype=torch.int64)
    for row, index in enumerate(chosen.tolist()):
        images[row], labels[row] = _read_alike(result, index, place, first)
    return images, labels


def _read_alike(dataset: Any, index: int, place: str, first: Tensor) -> tuple[Tensor, int]:
    """One sample, refused unless its image has the shape and dtype of the first one."""
    image, label = read_sample(dataset, index, place)
    if image.shape != first.shape or image.dtype != first.dtype:
        raise UserError(
            f"{place}, index {index}: image is {tensor_text(image)}, the first one "
            f"{tensor_text(first)}: give all one type and shape"
        )
    return image, label


def _num_classes(config: DataConfig, train: _Split, test: _Split) -> int:
    if "num_classes" in config.arguments:
        given = config.arguments["num_classes"]
    elif hasattr(train.dataset, "num_classes"):
        given = train.dataset.num_classes
    elif hasattr(train.dataset, "classes"):
        given = len(train.dataset.classes)
    elif train.labels is not None and test.labels is not None:
        given = int(max(train.labels.max(), test.labels.max())) + 1
    else:
        raise UserError(
            f"data set {config.name!r} does not say how many classes it has: set "
            f"data.arguments.num_classes, or give the data set an attribute num_classes"
        )
    try:
        num_classes = operator.index(given)
    except TypeError:
        num_classes = 0
    if num_classes < 1:
        raise UserError(
            f"data set {config.name!r}: num_classes={given!r}, expected a whole number above 0"
        )
    return num_classes


def _class_names(train: _Split, num_classes: int) -> tuple[str, ...] | None:
    names = getattr(train.dataset, "classes", None)
    if names is None or len(names) != num_classes:
        return None
    return tuple(str(name) for name in names)


def _source(split: _Split, num_classes: int, readers: Readers) -> Source:
    if split.images is not None and split.labels is not None:
        require_labels(split.labels.tolist(), num_classes, split.place, split.chosen)
        return MemorySource(split.images, split.labels)

    _require_threads_do_no_harm(split, readers)
    first, _ = split.some[0]

    def decode(row: int) -> Sample:
        index = int(split.chosen[row])
        here = f"{split.place}, index {index}"
        image, label = read_patiently(
            lambda: _read_alike(split.dataset, index, split.place, first), here
        )
        require_labels([label], num_classes, split.place, [index])
        return image, label

    return LazySource(
        decode, readers, num_samples=len(split.chosen), fingerprint=_fingerprint(split)
    )


def _require_threads_do_no_harm(split: _Split, readers: Readers) -> None:
    """Refuse a set that mixes samples up where several threads read it: called by one of them."""
    if readers.num_threads == 1:
        return
    indices = split.chosen[spread_over(len(split.chosen), NUM_READ_TWICE)].tolist()
    reads = [partial(read_sample, split.dataset, index, split.place) for index in indices]
    at_once = [readers.submit(read) for read in reads]
    for index, expected, future in zip(indices, split.some, at_once, strict=True):
        if not is_same(expected, future.result()):
            raise UserError(
                f"{split.place}, index {index}: gives another sample while several threads read: "
                f"leave data.num_workers out, or open the file in each thread"
            )


def _fingerprint(split: _Split) -> str:
    """Of a set too large to be read as a whole: what can be told from a few of its samples."""
    images = torch.stack([image for image, _ in split.some])
    labels = torch.tensor([label for _, label in split.some])
    return fingerprint_of(keys_of(images), labels, len(split.chosen), images.dtype)
