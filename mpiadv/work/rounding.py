"""Floats on their way between ranks: rounded to the type of the wire, and back. Knows no MPI.

Who crafted a batch, and on whose copy of the parameters, must not matter: whatever could have
travelled is rounded, also where it did not.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from mpiadv.comm.messages import WireDtype
from mpiadv.models import FlatState
from mpiadv.process.errors import UserError
from mpiadv.work.device import Device

WIRE_TENSORS: Mapping[WireDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

BYTES_OF_A_FLOAT = 4


def rounded(values: Tensor, wire_dtype: WireDtype) -> Tensor:
    """`values`: float32, as they are at the end of a journey.

    Images in [0, 1] stay there, but may leave their epsilon ball by half a step of the wire's type:
    2.4e-4 in float16, 2e-3 in bfloat16.
    """
    return values.to(WIRE_TENSORS[wire_dtype]).float()


def as_tensor(array: npt.NDArray[Any], wire_dtype: WireDtype) -> Tensor:
    """A message's array of `WIRE_ARRAYS` as the tensor that shares its memory."""
    return torch.from_numpy(array).view(WIRE_TENSORS[wire_dtype])


class RangeGuard:
    """Refuses parameters beyond the range of float16, where rounding would make them infinite.

    The largest one is found on the device and copied aside, so that nothing waits for it.
    """

    def __init__(self, state: FlatState, wire_dtype: WireDtype, device: Device) -> None:
        self._state = state
        # bfloat16 reaches as far as float32.
        self._is_needed = wire_dtype == "float16"
        self._device = device
        if self._is_needed:
            self._found = torch.zeros(1, device=device.torch)
            self._told = device.allocate(BYTES_OF_A_FLOAT)

    def begin(self) -> None:
        """Begin to look at the parameters of this moment; copies begun later end later."""
        if self._is_needed:
            self._found.copy_(self._state.largest())
            self._device.copy_aside(self._found.view(torch.uint8), self._told)

    def end(self) -> None:
        """Judge what `begin` began to look at, its copy being complete.

        Raises:
            UserError: a parameter cannot travel.
        """
        if not self._is_needed:
            return
        largest, limit = float(self._told.view("f4")[0]), torch.finfo(torch.float16).max
        # NaN and infinity travel as they are: the loss shows them, and ends the run.
        if limit < largest < inf:
            raise UserError(
                f"a parameter or buffer of the model has magnitude {largest:g}, and "
                f"training.wire_dtype=float16 holds at most {limit:g}: start anew with "
                "training.wire_dtype=bfloat16 or float32"
            )
