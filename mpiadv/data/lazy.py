"""Samples decoded when they are needed, ahead of time by threads. Knows no files and no format."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from mpiadv.data.source import Indices, to_unit_range

Sample = tuple[Tensor, int]

MAX_PREFETCHED = 8
"""Batches decoded ahead; the oldest that nobody asked for are dropped."""


class LazySource:
    """Samples that `decode(index)` gives as image uint8 or float32 [C, H, W] and label.

    `decode` is called from several threads at once.
    """

    def __init__(
        self,
        decode: Callable[[int], Sample],
        *,
        num_samples: int,
        num_workers: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_samples = num_samples
        self._decode = decode
        self._num_workers = num_workers
        self._device = device
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        self._pending: dict[bytes, list[Future[Sample]]] = {}

    def prefetch(self, indices: Indices) -> None:
        """Start to decode these samples; nothing where that has begun already."""
        key = indices.tobytes()
        if key not in self._pending:
            self._pending[key] = self._start(indices)
            self._drop_oldest()

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images float32 [N, C, H, W] in [0, 1] and labels int64 [N], on the source's device.

        Raises:
            UserError: a sample cannot be decoded.
        """
        futures = self._pending.pop(indices.tobytes(), None) or self._start(indices)
        try:
            images, labels = zip(*(future.result() for future in futures), strict=True)
        except BaseException:
            _cancel(futures)
            raise
        stacked = torch.stack(images).to(self._device)
        return to_unit_range(stacked), torch.tensor(labels, device=self._device)

    def to(self, device: torch.device | str) -> "LazySource":
        """The same samples, with batches on `device`."""
        return LazySource(
            self._decode,
            num_samples=self.num_samples,
            num_workers=self._num_workers,
            device=device,
        )

    def _start(self, indices: Indices) -> list[Future[Sample]]:
        return [self._executor.submit(self._decode, int(index)) for index in indices]

    def _drop_oldest(self) -> None:
        while len(self._pending) > MAX_PREFETCHED:
            oldest = next(iter(self._pending))
            _cancel(self._pending.pop(oldest))


def _cancel(futures: list[Future[Sample]]) -> None:
    for future in futures:
        future.cancel()
