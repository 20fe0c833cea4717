"""What the tickets of a training step come to: one gradient, one set of statistics, one outcome."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpiadv.contract.pairwise import PairwiseSum

Summands = list[Tensor | None]
"""A gradient for each parameter, then what passes make of each buffer; None: nothing."""


class Told(NamedTuple):
    """What a ticket told: float32 [], on its device."""

    loss: Tensor
    accuracy: Tensor
    magnitude: Tensor | None


class StepSum:
    """The mean over a step's tickets, added as `PairwiseSum` does.

    `count` of them, a power of two, are this trainer's; `num_trainers` trainers share out the step.

    The pass of each ticket begins from the buffers that the step began with, such as the statistics
    of batch norm; the step's are the mean of what the passes make of them. Until `complete` the
    model is as the step found it, so that whatever ends the run leaves the last whole step.
    """

    def __init__(self, model: nn.Module, count: int, num_trainers: int = 1) -> None:
        self._model, self._count, self._num_trainers = model, count, num_trainers
        self._sum = PairwiseSum(_added)
        self._kept: list[Tensor] = []
        self.told: list[Told] = []
        """What this trainer's tickets of the step told."""

    @property
    def _is_alone(self) -> bool:
        """Whether the step's only ticket leaves its gradient, and buffers, in their places."""
        return self._count * self._num_trainers == 1

    def begin(self) -> None:
        """Before the pass of a ticket."""
        if len(self.told) == self._count:
            self.told = []
        if not self._is_alone and not self.told:
            self._kept = [buffer.clone() for buffer in self._model.buffers()]

    @torch.no_grad()
    def end(self, told: Told) -> None:
        """After the pass, which left its gradient in `.grad`."""
        self.told.append(told)
        if self._is_alone:
            return
        buffers = list(self._model.buffers())
        # Nothing for buffers that stay: sums of large numbers, or of small types, might overflow.
        moved = [
            None if torch.equal(buffer, kept) else _summand(buffer)
            for buffer, kept in zip(buffers, self._kept, strict=True)
        ]
        self._sum.push([*(parameter.grad for parameter in self._model.parameters()), *moved])
        for buffer, kept in zip(buffers, self._kept, strict=True):
            buffer.copy_(kept)

    @torch.no_grad()
    def complete(self, sums: Summands | None = None) -> None:
        """Put the step's means into `.grad` and into the buffers.

        `sums`: those of all trainers; None where this one is alone.
        """
        if self._is_alone:
            return
        count = self._count * self._num_trainers
        means = [_mean(each, count) for each in (self.take() if sums is None else sums)]
        parameters = list(self._model.parameters())
        for parameter, mean in zip(parameters, means[: len(parameters)], strict=True):
            parameter.grad = mean
        for buffer, mean in zip(self._model.buffers(), means[len(parameters) :], strict=True):
            if mean is not None:
                buffer.copy_(mean)

    def take(self) -> Summands:
        """What this trainer's tickets come to, of which nothing is kept."""
        return self._sum.take()


def _added(left: Summands, right: Summands) -> Summands:
    """Place by place; a parameter that a pass did not reach has no gradient."""
    return [
        b if a is None else a if b is None else _plus(a, b)
        for a, b in zip(left, right, strict=True)
    ]


def summand_type(buffer: Tensor) -> torch.dtype:
    """Of whole numbers one that holds their sum."""
    is_whole = not (buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool)
    return torch.int64 if is_whole else buffer.dtype


def _summand(buffer: Tensor) -> Tensor:
    """What may be changed in its place."""
    return buffer.to(summand_type(buffer), copy=True)


def _plus(left: Tensor, right: Tensor) -> Tensor:
    return left.logical_or_(right) if left.dtype == torch.bool else left.add_(right)


def _mean(total: Tensor | None, count: int) -> Tensor | None:
    """Of whole numbers, such as the count of batches, rounded down."""
    if total is None or total.dtype == torch.bool:
        return total
    is_float = total.is_floating_point() or total.is_complex()
    return total.div_(count) if is_float else total.div_(count, rounding_mode="floor")
