"""What is on the wire: byte layouts of the messages. Knows no MPI and no torch.

Each message is one buffer of bytes; headers are numpy records at its start, the rest starts at a
multiple of 64 bytes. A message proves that it arrived: what receives it is erased before, its
header is sealed, and a long one repeats the seal at its end. A receive from a rank that dies may
pass for complete though nothing was written, or not all.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

ALIGNMENT = 64

WireDtype = Literal["float32", "float16", "bfloat16"]
"""What floating-point numbers are rounded to on the wire."""

WIRE_ARRAYS: Mapping[WireDtype, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
"""The arrays that hold them. NumPy has no bfloat16: its bits are in integers."""

PARAMETER_HEADER = np.dtype(
    [
        ("version", np.int64),
        ("num_steps", np.int64),
        ("epsilon", np.float64),
        ("stop", np.int64),
        ("published_at", np.float64),
        ("prober", np.int64),
        ("place", np.int64),
        ("seal", np.int64),
    ]
)

BATCH_HEADER = np.dtype(
    [
        ("ticket", np.int64),
        ("dropped", np.int64),
        ("first_version", np.int64),
        ("last_version", np.int64),
        ("attacker", np.int64),
        ("num_steps", np.int64),
        ("epsilon", np.float64),
        ("craft_seconds", np.float64),
        ("parameter_wait_seconds", np.float64),
        ("trainer_wait_seconds", np.float64),
        ("grant_wait_seconds", np.float64),
        ("gradient_magnitude", np.float64),
        ("natural_accuracy", np.float64),
        ("probe_ticket", np.int64),
        ("probe_accuracy", np.float64),
        ("probe_loss", np.float64),
        ("probe_seconds", np.float64),
        ("padding", np.int64, 6),
        ("seal", np.int64),
    ]
)

DROPPED, UNREAD = 1, 2
"""What `dropped` says of a ticket that comes without a batch: it was not needed any more, or its
images could not be read."""

GRANT_MESSAGE = np.dtype(
    [("kind", np.int64), ("ticket", np.int64), ("patient", np.int64), ("seal", np.int64)]
)

RELEASE_MESSAGE = np.dtype([("place", np.int64), ("seal", np.int64)])

FRAME = np.dtype([("size", np.int64), ("checksum", np.int64), ("seal", np.int64)])
"""What comes before a text: its size and its checksum."""

FAREWELL_MESSAGE = np.dtype(
    [
        ("batches_sent", np.int64),
        ("tickets_dropped", np.int64),
        ("craft_seconds", np.float64),
        ("parameter_wait_seconds", np.float64),
        ("trainer_wait_seconds", np.float64),
        ("grant_wait_seconds", np.float64),
        ("probe_ticket", np.int64),
        ("probe_accuracy", np.float64),
        ("probe_loss", np.float64),
        ("probe_seconds", np.float64),
        ("host", "S64"),
        ("seal", np.int64),
    ]
)

SEAL_BYTES = 8
ERASED = 0xFF


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The arrays of a batch: images [batch_size, *image_shape] in `wire_dtype`, labels int64."""

    batch_size: int
    image_shape: tuple[int, int, int]
    with_natural: bool = False
    wire_dtype: WireDtype = "float32"

    @property
    def num_bytes(self) -> int:
        copies = 2 if self.with_natural else 1
        return self._images_start + copies * self._image_bytes + ALIGNMENT

    @property
    def _images_start(self) -> int:
        return aligned(BATCH_HEADER.itemsize + 8 * self.batch_size)

    @property
    def _image_bytes(self) -> int:
        return aligned(self._num_values * self._array_type.itemsize)

    @property
    def _num_values(self) -> int:
        return self.batch_size * prod(self.image_shape)

    @property
    def _array_type(self) -> np.dtype[Any]:
        return WIRE_ARRAYS[self.wire_dtype]

    def labels(self, buffer: Bytes) -> npt.NDArray[np.int64]:
        """The labels in a batch's buffer: int64 [batch_size]."""
        start = BATCH_HEADER.itemsize
        return buffer[start : start + 8 * self.batch_size].view(np.int64)

    def images(self, buffer: Bytes) -> npt.NDArray[Any]:
        """The adversarial images in a batch's buffer: `WIRE_ARRAYS` [batch_size, C, H, W]."""
        return self._image_array(buffer, self._images_start)

    def natural(self, buffer: Bytes) -> npt.NDArray[Any] | None:
        """The natural images, where they travel too: `WIRE_ARRAYS` [batch_size, C, H, W]."""
        if not self.with_natural:
            return None
        return self._image_array(buffer, self._images_start + self._image_bytes)

    def _image_array(self, buffer: Bytes, start: int) -> npt.NDArray[Any]:
        num_bytes = self._num_values * self._array_type.itemsize
        values = buffer[start : start + num_bytes].view(self._array_type)
        return values.reshape(self.batch_size, *self.image_shape)


def aligned(num_bytes: int) -> int:
    """`num_bytes` rounded up to the alignment."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def erase(buffer: Bytes) -> None:
    """Make the header and the end of what is to receive a message such as no message has."""
    buffer[: BATCH_HEADER.itemsize] = ERASED
    buffer[-SEAL_BYTES:] = ERASED


def seal(header: npt.NDArray[Any]) -> None:
    """Complete a message's header, a record array of length 1."""
    header["seal"] = _checksum(header)


def seal_whole(buffer: Bytes, header: npt.NDArray[Any]) -> None:
    """Complete a long message: its end says what its header does."""
    seal(header)
    _end_of(buffer)[:] = header["seal"]


def is_sealed(header: npt.NDArray[Any]) -> bool:
    """Whether a header is as its sender completed it."""
    return int(header["seal"][0]) == _checksum(header)


def is_whole(buffer: Bytes, header: npt.NDArray[Any]) -> bool:
    """Whether a long message has arrived from its beginning to its end."""
    return is_sealed(header) and int(_end_of(buffer)[0]) == int(header["seal"][0])


def checksum(message: Bytes) -> int:
    """What tells a message from one that did not arrive whole."""
    return zlib.crc32(message.data)


def _checksum(header: npt.NDArray[Any]) -> int:
    return checksum(header.view(np.uint8)[:-SEAL_BYTES])


def _end_of(buffer: Bytes) -> npt.NDArray[np.int64]:
    return buffer[-SEAL_BYTES:].view(np.int64)


def header_of(buffer: Bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The header at the start of a buffer, as a writable record array of length 1."""
    return buffer[: dtype.itemsize].view(dtype)
