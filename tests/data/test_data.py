"""Batches are the samples asked for, as pixels in [0, 1], from memory or decoded ahead of time."""

import errno
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from mpiadv.contract.tickets import choose_samples
from mpiadv.data import DataSet, Source, load_data
from mpiadv.data.lazy import LazySource, Readers
from mpiadv.data.patience import LONGEST_SECONDS, read_patiently
from mpiadv.data.read_ahead import MOST_BATCHES, ReadAhead
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.settings import DataConfig


def everything(source: Source) -> tuple[Tensor, Tensor]:
    return source.batch(np.arange(source.num_samples))


def digits(**fields: Any) -> DataSet:
    return load_data(DataConfig(name="digits", **fields))


def test_digits_are_all_of_scikit_learns_once() -> None:
    from sklearn import datasets

    data = digits()
    assert (data.train.num_samples, data.test.num_samples) == (1437, 360)
    images = torch.cat([everything(data.train)[0], everything(data.test)[0]])
    ours = sorted((images * 255).round().flatten(1).to(torch.int64).tolist())
    theirs = np.round(datasets.load_digits().data * 255 / 16).astype(np.int64)
    assert ours == sorted(theirs.tolist())


def test_digits_are_those_of_scikit_learn_also_where_its_file_lies_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = everything(digits().train)
    monkeypatch.setattr("mpiadv.data.digits.FILE", "elsewhere.csv")
    for ours, theirs in zip(everything(digits().train), expected, strict=True):
        assert torch.equal(ours, theirs)


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


def lazy(decode: Callable[[int], tuple[Tensor, int]], num_threads: int = 2) -> LazySource:
    return LazySource(decode, Readers(num_threads), num_samples=255, fingerprint="")


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


class Gate:
    """Decodes nothing until it is opened."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self._opened = threading.Event()

    def __call__(self, index: int) -> tuple[Tensor, int]:
        self._opened.wait(timeout=10)
        return self.decoder(index)

    def open(self) -> list[int]:
        """What is decoded when it opens, in that order."""
        self._opened.set()
        return self.decoder.calls


def row(number: int) -> npt.NDArray[np.int64]:
    return np.array([number])


def test_forgotten_prefetch_is_not_decoded_while_it_waits() -> None:
    gate = Gate()
    source = lazy(gate, num_threads=1)
    for number in range(3):
        source.prefetch(row(number))
    source.forget(row(1))
    gate.open()
    source.batch(row(2))
    assert gate.decoder.calls == [0, 2]


@pytest.mark.parametrize("order", [range(12), range(11, -1, -1)], ids=["in_turn", "backwards"])
def test_batches_are_read_ahead_oldest_first_and_none_again(order: Sequence[int]) -> None:
    gate = Gate()
    source = lazy(gate, num_threads=1)
    ahead = ReadAhead(source)
    for number in order:
        ahead.expect(number, row(number))
    calls = gate.open()
    for number in range(12):
        source.batch(row(number))
        ahead.drop(number)
    # The first that was expected may have been begun before any other was known.
    assert calls[-12:] == list(range(12))
    assert len(calls) == 12 or calls[:-12] == [order[0]]


def test_no_more_batches_than_memory_is_meant_for_are_read_ahead() -> None:
    decoder = Decoder()
    source = lazy(decoder, num_threads=1)
    ahead = ReadAhead(source)
    for number in range(2 * MOST_BATCHES):
        ahead.expect(number, row(number))
    while not source.wait(row(MOST_BATCHES - 1), 1.0):
        pass
    assert decoder.calls == list(range(MOST_BATCHES))
    ahead.drop(3)
    while not source.wait(row(MOST_BATCHES), 1.0):
        pass
    assert decoder.calls[MOST_BATCHES:] == [MOST_BATCHES]


def test_what_somebody_waits_for_is_read_before_what_comes_later() -> None:
    gate = Gate()
    source = lazy(gate, num_threads=1)
    for number in range(4):
        source.prefetch(row(number), urgency=number)
    assert not source.wait(row(9), 0.0)
    assert gate.open()[:2] != [0, 1]
    source.batch(row(3))
    assert gate.decoder.calls == [0, 9, 1, 2, 3]


def test_readers_that_hang_keep_no_program_from_ending() -> None:
    threads: list[threading.Thread] = []
    Readers(1).submit(lambda: threads.append(threading.current_thread())).result()
    assert [thread.daemon for thread in threads] == [True]


def test_readers_that_nobody_holds_end() -> None:
    before = threading.active_count()
    readers = [Readers(3) for _ in range(5)]
    for one in readers:
        for _ in range(3):
            one.submit(lambda: None).result()
    assert threading.active_count() >= before + 5
    readers.clear()
    del one
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


class FailingDisk:
    """A file that cannot be read for some seconds of a clock of its own."""

    def __init__(self, seconds: float, error: OSError) -> None:
        self.now = 0.0
        self._seconds = seconds
        self._error = error

    def read(self) -> str:
        if self.now < self._seconds:
            raise self._error
        return "content"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patiently(self) -> str:
        return read_patiently(self.read, "image a.png", clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 0.9 * LONGEST_SECONDS])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOENT], ids=["io", "nfs", "gone"])
def test_file_that_cannot_be_read_for_a_while_is_read_again(seconds: float, code: int) -> None:
    disk = FailingDisk(seconds, OSError(code, "no"))
    assert disk.patiently() == "content"
    assert disk.now < 2 * seconds + 5


def test_file_that_stays_unreadable_is_given_up_and_named_with_the_reason() -> None:
    disk = FailingDisk(1e9, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(UnreadableError) as caught:
        disk.patiently()
    assert str(caught.value).startswith("image a.png could not be read for 6")
    assert str(caught.value).endswith(" s (Input/output error)")


def test_damaged_content_is_not_read_again() -> None:
    disk = FailingDisk(1e9, OSError("image file is truncated"))
    with pytest.raises(OSError, match="truncated"):
        disk.patiently()
    assert disk.now == 0.0


def test_damaged_sample_is_refused_when_its_batch_is_asked_for() -> None:
    source = lazy(Decoder())
    source.prefetch(np.array([3, -1]))
    with pytest.raises(UserError, match="sample -1 is damaged"):
        source.batch(np.array([3, -1]))
    assert source.batch(np.array([3]))[1].tolist() == [3]
