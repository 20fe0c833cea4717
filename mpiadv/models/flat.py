"""A module's whole state as one vector of bytes, and as one hash. Knows no MPI and no files."""

import hashlib

import torch
from torch import Tensor, nn

from mpiadv.comm.messages import aligned


class FlatState:
    """The byte layout of a module's parameters and buffers in one flat vector of `num_bytes`.

    Parameters come first, then buffers, persistent or not, in the module's order; a shared tensor
    appears once. Each is aligned as messages are; the bytes between are nobody's: `pack` leaves
    them as they are.

    Floating-point tensors are rounded to `floats` on their way into the vector, to nearest, ties to
    even, and beyond its range to infinity (see `largest`); without it they keep their bits, as all
    others do.
    """

    def __init__(self, module: nn.Module, floats: torch.dtype | None = None) -> None:
        self._module = module
        self._floats = floats
        self._starts: list[int] = []
        self.num_bytes = 0
        for _, tensor in named_tensors(module):
            self._starts.append(self.num_bytes)
            self.num_bytes += aligned(tensor.numel() * self._stored_as(tensor).itemsize)

    def pack(self, out: Tensor) -> None:
        """Copy the module's tensors into `out`: uint8 [num_bytes], on any device.

        The first byte of `out` must lie at a multiple of 8 bytes in its storage.
        """
        self._copy(out, into_module=False)

    def unpack(self, flat: Tensor) -> None:
        """Copy `flat`: uint8 [num_bytes], as `pack` wrote it, back into the module, in place."""
        self._copy(flat, into_module=True)

    def largest(self) -> Tensor:
        """The largest magnitude among the floating-point values, as a scalar on their device.

        NaN where there is any; it needs no wait for the device.
        """
        floats = [t.detach() for _, t in named_tensors(self._module) if t.is_floating_point()]
        ends = [end for tensor in floats if tensor.numel() for end in tensor.aminmax()]
        return torch.stack(ends).abs().max() if ends else torch.zeros(())

    def _stored_as(self, tensor: Tensor) -> torch.dtype:
        return self._floats if self._floats and tensor.is_floating_point() else tensor.dtype

    @torch.no_grad()
    def _copy(self, flat: Tensor, *, into_module: bool) -> None:
        if flat.dtype != torch.uint8 or flat.shape != (self.num_bytes,):
            raise ValueError(
                f"expected uint8 [{self.num_bytes}], got {flat.dtype} {list(flat.shape)}"
            )
        for tensors, views in self._grouped(flat):
            # One kernel per dtype on a GPU, instead of one per tensor.
            if into_module:
                torch._foreach_copy_(tensors, views)
            else:
                torch._foreach_copy_(views, tensors)

    def _grouped(self, flat: Tensor) -> list[tuple[list[Tensor], list[Tensor]]]:
        """The module's tensors and their places in `flat`, grouped by the module's dtypes."""
        groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        # Listed anew each time: moving a module to a device replaces its buffers.
        for start, (_, tensor) in zip(self._starts, named_tensors(self._module), strict=True):
            tensors, views = groups.setdefault(tensor.dtype, ([], []))
            tensors.append(tensor)
            dtype = self._stored_as(tensor)
            stored = flat[start : start + tensor.numel() * dtype.itemsize]
            views.append(stored.view(dtype).view(tensor.shape))
        return list(groups.values())


def fingerprint(module: nn.Module) -> str:
    """The SHA-256, in hex, of the names, dtypes, shapes and bytes of a module's whole state."""
    digest = hashlib.sha256()
    for name, tensor in named_tensors(module):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, then buffers."""
    return [*module.named_parameters(), *module.named_buffers()]
