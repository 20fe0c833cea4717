"""What a trainer adds to a step, laid out flat for the way to the other trainers. Knows no MPI."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpiadv.comm.messages import Bytes, aligned
from mpiadv.comm.sums import PIECE_BYTES, IsReady
from mpiadv.work.device import IsComplete
from mpiadv.work.step_sum import Summands, summand_type

Copy = Callable[[Tensor, Bytes], IsComplete]
"""Begins to copy bytes of the model's device into the host's memory."""


def _copied(source: Tensor, target: Bytes) -> IsComplete:
    torch.from_numpy(target).copy_(source)
    return lambda: True


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The tensors of one type, which lie one after the other."""

    dtype: torch.dtype
    start: int
    num_values: int
    places: Sequence[int]
    """Which of the summands they are."""

    @property
    def end(self) -> int:
        return self.start + aligned(self.num_values * self.dtype.itemsize)


class FlatSums:
    """The layout of a model's `Summands`: by their types, then a byte of each, whether it is there.

    One that is not there lies as minus zero: no number changes its bits when that is added.
    """

    def __init__(self, model: nn.Module, copy: Copy = _copied) -> None:
        self._copy = copy
        # Gradients lie as their parameters do: the optimiser's bits might depend on it.
        parameters = [(p.dtype, p.shape, p.stride()) for p in model.parameters()]
        buffers = [(summand_type(b), b.shape, b.stride()) for b in model.buffers()]
        self._like = [*parameters, *buffers]
        self._device = next(iter(model.parameters())).device
        self._parts: list[_Block] = []
        start = 0
        for dtype in dict.fromkeys(dtype for dtype, *_ in self._like):
            places = [place for place, (its, *_) in enumerate(self._like) if its == dtype]
            count = sum(self._like[place][1].numel() for place in places)
            part = _Block(dtype=dtype, start=start, num_values=count, places=places)
            self._parts.append(part)
            start = part.end
        self._flags = start
        self.num_bytes = start + aligned(len(self._like))

    def pack(self, summands: Summands, values: Bytes) -> IsReady:
        """Begin to write them into `values`: uint8 [num_bytes]; in pieces, as a device copies them.

        The result says up to where they are there.
        """
        # With what is copied: its memory must not be anybody else's until then.
        copies: deque[tuple[int, IsComplete, Tensor]] = deque()
        for part in self._parts:
            gathered = [self._flat(summands[place], place) for place in part.places]
            flat = torch.cat(gathered).view(torch.uint8)
            for start in range(0, len(flat), PIECE_BYTES):
                piece, first = flat[start : start + PIECE_BYTES], part.start + start
                is_complete = self._copy(piece, values[first : first + len(piece)])
                copies.append((first, is_complete, piece))
        flags = values[self._flags :]
        flags[:] = 0
        flags[: len(summands)] = [summand is not None for summand in summands]

        def is_ready(end: int) -> bool:
            while copies and copies[0][0] < end and copies[0][1]():
                copies.popleft()
            return not copies or copies[0][0] >= end

        return is_ready

    def unpack(self, values: Bytes) -> Summands:
        """What `pack` wrote, or sums of it; the tensors are new ones, on the model's device."""
        found: Summands = [None] * len(self._like)
        for part in self._parts:
            flat = self._of(part, values)[: part.num_values].to(self._device)
            sizes = [self._like[place][1].numel() for place in part.places]
            for place, tensor in zip(part.places, flat.split(sizes), strict=True):
                if values[self._flags + place]:
                    dtype, shape, stride = self._like[place]
                    new = torch.empty_strided(shape, stride, dtype=dtype, device=self._device)
                    found[place] = new.copy_(tensor.view(shape))
        return found

    def add(self, values: Bytes, start: int, theirs: Bytes) -> None:
        """Add what came to `values` from `start` on; both are whole blocks of 64 bytes."""
        end = start + theirs.size
        for part in self._parts:
            first, last = max(start, part.start), min(end, part.end)
            if first < last:
                mine = torch.from_numpy(values[first:last]).view(part.dtype)
                its = torch.from_numpy(theirs[first - start : last - start]).view(part.dtype)
                mine.logical_or_(its) if part.dtype == torch.bool else mine.add_(its)
        if end > self._flags:
            first = max(start, self._flags)
            values[first:end] |= theirs[first - start :]

    def _flat(self, summand: Tensor | None, place: int) -> Tensor:
        dtype, shape, _ = self._like[place]
        if summand is not None:
            return summand.reshape(-1)
        nothing = -0.0 if dtype.is_floating_point or dtype.is_complex else 0
        return torch.full((shape.numel(),), nothing, dtype=dtype, device=self._device)

    def _of(self, part: _Block, values: Bytes) -> Tensor:
        return torch.from_numpy(values[part.start : part.end]).view(part.dtype)
