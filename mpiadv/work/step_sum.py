"""What the tickets of a training step come to: one gradient, one set of statistics, one outcome."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpiadv.contract.pairwise import PairwiseSum, pairwise_mean


class Told(NamedTuple):
    """What a ticket told: float32 [], on its device."""

    loss: Tensor
    accuracy: Tensor
    magnitude: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Means:
    """What all tickets of a step told."""

    loss: float
    accuracy: float
    magnitude: float | None


class StepSum:
    """The mean over a step's `count` tickets, a power of two, added as `PairwiseSum` does.

    The pass of each ticket begins from the buffers that the step began with, such as the statistics
    of batch norm; the step's are the mean of what the passes make of them. Until its last ticket
    the model is as the step found it, so that whatever ends the run leaves the last whole step.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self._model, self._count = model, count
        self._sum = PairwiseSum(_added)
        self._kept: list[Tensor] = []
        self._told: list[Told] = []

    def begin(self) -> None:
        """Before the pass of a ticket."""
        if len(self._told) == self._count:
            self._told = []
        if self._count > 1 and not self._told:
            self._kept = [buffer.clone() for buffer in self._model.buffers()]

    @torch.no_grad()
    def end(self, told: Told) -> bool:
        """After the pass, which left its gradient in `.grad`; True when the step's means are there.

        They are in `.grad` and in the buffers then.
        """
        if self._count == 1:
            self._told = [told]
            return True
        self._told.append(told)
        parameters, buffers = list(self._model.parameters()), list(self._model.buffers())
        # Nothing for buffers that stay: sums of large numbers, or of small types, might overflow.
        moved = [
            None if torch.equal(buffer, kept) else _summand(buffer)
            for buffer, kept in zip(buffers, self._kept, strict=True)
        ]
        self._sum.push([*(parameter.grad for parameter in parameters), *moved])
        is_complete = len(self._told) == self._count
        means = [_mean(each, self._count) for each in self._sum.take()] if is_complete else []
        for buffer, kept in zip(buffers, self._kept, strict=True):
            buffer.copy_(kept)
        for buffer, mean in zip(buffers, means[len(parameters) :], strict=False):
            if mean is not None:
                buffer.copy_(mean)
        for parameter, mean in zip(parameters, means[: len(parameters)], strict=False):
            parameter.grad = mean
        return is_complete

    def means(self) -> Means:
        """Of the step that is complete: reading them waits for the device."""
        magnitudes = [told.magnitude for told in self._told]
        known = [float(each) for each in magnitudes if each is not None]
        return Means(
            loss=pairwise_mean([float(told.loss) for told in self._told]),
            accuracy=pairwise_mean([float(told.accuracy) for told in self._told]),
            magnitude=pairwise_mean(known) if len(known) == len(magnitudes) else None,
        )


def _added(left: list[Tensor | None], right: list[Tensor | None]) -> list[Tensor | None]:
    """Place by place; a parameter that a pass did not reach has no gradient."""
    return [
        b if a is None else a if b is None else _plus(a, b)
        for a, b in zip(left, right, strict=True)
    ]


def _summand(buffer: Tensor) -> Tensor:
    """What may be changed in its place; whole numbers in a type that holds their sum."""
    is_whole = not (buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool)
    return buffer.to(torch.int64, copy=True) if is_whole else buffer.clone()


def _plus(left: Tensor, right: Tensor) -> Tensor:
    return left.logical_or_(right) if left.dtype == torch.bool else left.add_(right)


def _mean(total: Tensor | None, count: int) -> Tensor | None:
    """Of whole numbers, such as the count of batches, rounded down."""
    if total is None or total.dtype == torch.bool:
        return total
    is_float = total.is_floating_point() or total.is_complex()
    return total.div_(count) if is_float else total.div_(count, rounding_mode="floor")
