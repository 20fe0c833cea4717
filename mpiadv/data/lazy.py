"""Samples decoded when they are needed, ahead of time by threads. Knows no files and no format."""

import hashlib
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from copy import copy
from functools import partial
from queue import PriorityQueue
from typing import Any, TypeVar

import torch
from torch import Tensor

from mpiadv.data.source import Indices, to_unit_range

T = TypeVar("T")

AT_ONCE = -1
"""The urgency of what somebody waits for already."""

_Item = tuple[float, int, Callable[[], None] | None]
"""Urgency, a number to tell equals apart, and what to do; None: a thread is needed no more."""

Sample = tuple[Tensor, int]


class Readers:
    """So many threads; with one, what is submitted runs one after the other in the same thread.

    Unlike those of an executor they keep no program from ending: a read may hang for long.
    """

    def __init__(self, num_threads: int) -> None:
        self._items: PriorityQueue[_Item] = PriorityQueue()
        self._count = itertools.count()
        self.num_threads = self._num_to_start = num_threads
        weakref.finalize(self, _dismiss, self._items, num_threads)

    def submit(self, read: Callable[[], T], *, urgency: int = AT_ONCE) -> Future[T]:
        """Have `read` called; those of a smaller `urgency` come first."""
        future: Future[T] = Future()
        self._items.put((urgency, next(self._count), lambda: _fulfil(future, read)))
        if self._num_to_start:
            self._num_to_start -= 1
            threading.Thread(target=_serve, args=[self._items], name="reader", daemon=True).start()
        return future


class LazySource:
    """Samples that `decode(index)` gives as image uint8 or float32 [C, H, W] and label: a `Source`.

    `decode` is called by the threads of `readers`, which other sources may share. `labels`, int64
    [N], are those of all samples, where they are known.
    """

    def __init__(
        self,
        decode: Callable[[int], Sample],
        readers: Readers,
        *,
        num_samples: int,
        fingerprint: str,
        labels: Tensor | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.fingerprint = fingerprint
        self.labels = labels
        self._decode = decode
        self._readers = readers
        self._device: torch.device | str = "cpu"
        self._pending: dict[bytes, list[Future[Sample]]] = {}

    def prefetch(self, indices: Indices, *, urgency: int = 0) -> None:
        key = indices.tobytes()
        if key not in self._pending:
            self._pending[key] = self._start(indices, urgency)

    def forget(self, indices: Indices) -> None:
        _cancel(self._pending.pop(indices.tobytes(), []))

    def wait(self, indices: Indices, seconds: float) -> bool:
        self.prefetch(indices, urgency=AT_ONCE)
        futures = self._pending[indices.tobytes()]
        left = [future for future in futures if not future.done()]
        if not left or any(f.exception() for f in futures if f.done() and not f.cancelled()):
            return True
        wait(left, timeout=seconds, return_when=FIRST_COMPLETED)
        return False

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        futures = self._pending.pop(indices.tobytes(), None) or self._start(indices, AT_ONCE)
        try:
            images, labels = zip(*(future.result() for future in futures), strict=True)
        except BaseException:
            _cancel(futures)
            raise
        stacked = _stacked(images).to(self._device)
        return to_unit_range(stacked), torch.tensor(labels, device=self._device)

    def part(self, indices: Indices) -> "LazySource":
        some = copy(self)
        some._decode = lambda index: self._decode(int(indices[index]))
        some._pending = {}
        some.num_samples = len(indices)
        told = hashlib.sha256(self.fingerprint.encode() + indices.tobytes())
        some.fingerprint = told.hexdigest()
        some.labels = None if self.labels is None else self.labels[torch.from_numpy(indices)]
        return some

    def to(self, device: torch.device | str) -> "LazySource":
        moved = copy(self)
        moved._device, moved._pending = device, {}
        return moved

    def _start(self, indices: Indices, urgency: int) -> list[Future[Sample]]:
        reads = [partial(self._decode, int(index)) for index in indices]
        return [self._readers.submit(read, urgency=urgency) for read in reads]


def _serve(items: PriorityQueue[_Item]) -> None:
    # Holds no `Readers`: they go when nobody else holds them, and dismiss their threads.
    while (work := items.get()[-1]) is not None:
        work()
        del work  # it may hold them


def _dismiss(items: PriorityQueue[_Item], num_threads: int) -> None:
    for number in range(num_threads):
        items.put((float("inf"), number, None))


def _fulfil(future: Future[Any], read: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = read()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _stacked(images: tuple[Tensor, ...]) -> Tensor:
    """One batch; of bytes where all are bytes, which travel faster to a device."""
    if all(image.dtype == images[0].dtype for image in images):
        return torch.stack(images)
    return torch.stack([to_unit_range(image) for image in images])


def _cancel(futures: list[Future[Sample]]) -> None:
    for future in futures:
        future.cancel()
