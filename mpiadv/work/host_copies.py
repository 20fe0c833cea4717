"""Copies of tensors in host memory, taken again and again. Knows nothing of what they are for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_Layout = tuple[Any, ...]


class HostCopies:
    """Copies in host memory that is used again by the next round.

    Touching memory for the first time costs several times the copy itself. Copies from a GPU go on
    beside the computation, and are of the moment that they were asked for.
    """

    def __init__(self) -> None:
        self._free: dict[_Layout, list[Tensor]] = {}
        self._used: list[tuple[_Layout, Tensor]] = []

    def begin(self) -> None:
        """Begin a round: the copies of the one before may be written over from now on."""
        for layout, target in self._used:
            self._free.setdefault(layout, []).append(target)
        self._used.clear()

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy of any tensor, to be read only after `completion` has returned."""
        layout = (tensor.shape, tensor.dtype, tensor.stride(), tensor.device.type)
        free = self._free.get(layout)
        target = free.pop() if free else _host_memory(tensor)
        target.copy_(tensor.detach(), non_blocking=True)
        self._used.append((layout, target))
        return target

    def completion(self) -> Callable[[], None]:
        """What waits for the copies of this round, in any thread."""
        if not torch.cuda.is_initialized():
            return lambda: None
        done = torch.cuda.Event(blocking=True)
        done.record()
        return done.synchronize


def _host_memory(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
