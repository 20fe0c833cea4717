"""How a function of tensors is run on a model: as it is, or by who knows it from earlier calls.

Knows no model and no device.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Results = Sequence[Tensor | None]
Name = tuple[object, ...]
"""First what a function does, for people; then all that decides it, as compared by `==`."""


class Executor(Protocol):
    """Runs functions that come again and again with other values in tensors of the same layout.

    What a function does is decided by its inputs, by the parameters and buffers of one model, which
    whoever changes them changes in place, and by random streams that the caller has seeded. It may
    change the values in that model's buffers; nothing else that it leaves behind may be relied on.
    """

    def __call__(self, name: Name, function: Callable[..., Results], *inputs: Tensor) -> Results:
        """What `function(*inputs)` returns; the caller may keep it."""


def eagerly(name: Name, function: Callable[..., Results], *inputs: Tensor) -> Results:
    """An `Executor` that calls the function."""
    return function(*inputs)
