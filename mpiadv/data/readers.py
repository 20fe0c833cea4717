"""Threads that read samples, the most urgent first. Knows no data set."""

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import PriorityQueue
from typing import Any, TypeVar

T = TypeVar("T")

AT_ONCE = -1
"""The urgency of what somebody waits for already."""

_Item = tuple[float, int, Callable[[], None] | None]
"""Urgency, a number to tell equals apart, and what to do; None: a thread is needed no more."""


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
