"""Batches are the samples asked for, as pixels in [0, 1], from memory or decoded ahead of time."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch import Tensor

from mpiadv.config import DataConfig
from mpiadv.data import DataSet, Source, load_data
from mpiadv.data.lazy import MAX_PREFETCHED, LazySource
from mpiadv.errors import UserError
from mpiadv.tickets import choose_samples


def everything(source: Source) -> tuple[Tensor, Tensor]:
    return source.batch(np.arange(source.num_samples))


def digits(**fields: Any) -> DataSet:
    return load_data(DataConfig(name="digits", **fields))


def test_digits_are_all_of_scikit_learns_once() -> None:
    data = digits()
    assert (data.train.num_samples, data.test.num_samples) == (1437, 360)
    images = torch.cat([everything(data.train)[0], everything(data.test)[0]])
    ours = sorted((images * 255).round().flatten(1).to(torch.int64).tolist())
    theirs = np.round(datasets.load_digits().data * 255 / 16).astype(np.int64)
    assert ours == sorted(theirs.tolist())


def test_digits_of_both_splits_hold_all_classes_alike() -> None:
    data = digits()
    for source in (data.train, data.test):
        share = torch.bincount(everything(source)[1], minlength=10) / source.num_samples
        assert ((share > 0.06) & (share < 0.14)).all()


def test_order_of_digits_never_changes() -> None:
    # A log or checkpoint of an earlier version names samples by their place.
    first = [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    assert everything(digits().train)[1][:12].tolist() == first


def test_batch_is_float_pixels_and_labels_of_the_rows_asked_for() -> None:
    source = digits().train
    all_images, all_labels = everything(source)
    rows = np.array([5, 0, 5])
    images, labels = source.batch(rows)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (float(all_images.min()), float(all_images.max())) == (0.0, 1.0)
    assert torch.equal(images, all_images[rows])
    assert torch.equal(labels, all_labels[rows])


def test_source_on_a_device_gives_batches_there() -> None:
    images, labels = digits().train.to("meta").batch(np.arange(3))
    assert (images.device.type, labels.device.type) == ("meta", "meta")


def test_train_samples_keeps_some_of_the_training_split_only() -> None:
    whole, part = digits(), digits(train_samples=100)
    assert (part.train.num_samples, part.test.num_samples) == (100, 360)
    chosen = whole.train.batch(choose_samples(1437, 100))
    assert torch.equal(part.train.batch(np.arange(100))[0], chosen[0])


REFUSED = [
    pytest.param({"name": "digit"}, "unknown data set 'digit': did you mean 'digits'?", id="name"),
    pytest.param(
        {"name": "digits", "arguments": {"image_size": 3}},
        "data set 'digits' does not take image_size; it takes none",
        id="arguments",
    ),
    pytest.param({"name": "no_such_module:load"}, "cannot import 'no_such_module'", id="module"),
]


@pytest.mark.parametrize(("fields", "expected"), REFUSED)
def test_data_that_cannot_be_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load_data(DataConfig(**fields))
    assert expected in str(caught.value)


class Decoder:
    """Counts how often each sample is decoded; its pixels and labels say which it is."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, index: int) -> tuple[Tensor, int]:
        with self._lock:
            self.calls.append(index)
        if index < 0:
            raise UserError(f"sample {index} is damaged")
        return torch.full((1, 2, 2), index, dtype=torch.uint8), index


def lazy(decode: Callable[[int], tuple[Tensor, int]], num_workers: int = 2) -> LazySource:
    return LazySource(decode, num_samples=255, num_workers=num_workers)


@pytest.mark.parametrize("ahead", [False, True], ids=["on_demand", "prefetched"])
def test_lazy_batch_keeps_the_order_asked_for(ahead: bool) -> None:
    source, rows = lazy(Decoder()), np.array([51, 0, 255, 51])
    if ahead:
        source.prefetch(rows)
    images, labels = source.batch(rows)
    assert labels.tolist() == rows.tolist()
    assert torch.equal(images[:, 0, 0, 0], torch.tensor([0.2, 0.0, 1.0, 0.2]))


def test_prefetching_twice_decodes_once() -> None:
    decoder = Decoder()
    source, rows = lazy(decoder), np.arange(4)
    source.prefetch(rows)
    source.prefetch(rows.copy())
    source.batch(rows)
    assert sorted(decoder.calls) == [0, 1, 2, 3]


def test_batch_can_be_asked_for_again() -> None:
    source, rows = lazy(Decoder()), np.arange(3)
    source.prefetch(rows)
    assert torch.equal(source.batch(rows)[0], source.batch(rows)[0])


def test_prefetches_nobody_asks_for_are_dropped_oldest_first() -> None:
    decoder = Decoder()
    source = lazy(decoder)
    for row in range(MAX_PREFETCHED + 1):
        source.prefetch(np.array([row]))
    for row in range(1, MAX_PREFETCHED + 1):
        source.batch(np.array([row]))
    kept = len(decoder.calls)
    source.batch(np.array([0]))
    assert decoder.calls[kept:] == [0]


def test_dropped_prefetch_is_not_decoded_while_it_waits() -> None:
    gate, decoder = threading.Event(), Decoder()

    def decode(index: int) -> tuple[Tensor, int]:
        gate.wait(timeout=10)
        return decoder(index)

    source = lazy(decode, num_workers=1)
    for row in range(MAX_PREFETCHED + 2):
        source.prefetch(np.array([row]))
    gate.set()
    source.batch(np.array([MAX_PREFETCHED + 1]))
    assert 1 not in decoder.calls


def test_damaged_sample_is_refused_when_its_batch_is_asked_for() -> None:
    source = lazy(Decoder())
    source.prefetch(np.array([3, -1]))
    with pytest.raises(UserError, match="sample -1 is damaged"):
        source.batch(np.array([3, -1]))
    assert source.batch(np.array([3]))[1].tolist() == [3]
