"""The messages: what they say, and their byte layouts. Knows no MPI and no torch.

Each message is one buffer of bytes; its header is the record of a dataclass at its start, the rest
starts at a multiple of 64 bytes. A message proves that it arrived: what receives it is erased
before, its header is sealed, and a long one repeats the seal at its end. A receive from a rank that
dies may pass for complete though nothing was written, or not all.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpiadv.contract.accounts import CraftReport, Probed, Provenance, RankSeconds, RankWork
from mpiadv.contract.columns import SaidT, from_record, record_type, to_record
from mpiadv.contract.tickets import AttackSettings
from mpiadv.contract.turns import NO_GRANT, Grant

Bytes = npt.NDArray[np.uint8]

Header = npt.NDArray[np.void]
"""A header as it travels: a record array of length 1."""

ALIGNMENT = 64

WireDtype = Literal["float32", "float16", "bfloat16"]
"""What floating-point numbers are rounded to on the wire."""

WIRE_ARRAYS: Mapping[WireDtype, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
"""The arrays that hold them. NumPy has no bfloat16: its bits are in integers."""

SEAL_BYTES = 8
ERASED = 0xFF
_MOST_REMEMBERED = 256
"""Headers, of some hundred bytes each."""


class Fate(IntEnum):
    """What became of a granted ticket."""

    CRAFTED = 0
    DROPPED = 1
    """It was not needed any more."""
    UNREAD = 2
    """Its images could not be read."""


class Word(IntEnum):
    """What the trainer says to an attacker."""

    GRANT = 0
    LAST_CALL = 1
    """It grants nothing more: every grant has arrived."""
    ALIVE = 2
    """It is busy elsewhere and wants to be waited for."""
    LEAVE = 3
    """It has given the attacker up."""
    GONE = 4
    """Another rank, `Call.gone`, takes no part any more."""
    SENDS = 5
    """To a leader: no broadcast comes any more, versions are sent to it from now on."""
    END = 6
    """All have said farewell: it may go."""


class Stop(IntEnum):
    """Why a run ends, as its last version says it."""

    NO = 0
    FINISHED = 1
    INTERRUPTED = 2
    REFUSED = 3
    """Samples, or code of the user's, are not what they should be."""


class Sign(IntEnum):
    """What a frame is there for."""

    TEXT = 0
    """A text follows, unless it is empty."""
    ALIVE = 1
    """The sender is at work."""
    LEAVE = 2
    """The receiver was given up and is to leave."""


@dataclass(frozen=True, kw_only=True)
class VersionHeader:
    """What comes before the parameters of a version.

    `stop`: whether, and why, it is the last one. `published_at`: seconds since 1970. `prober`: the
    rank that probes the ticket of this version. `place`: where it lies in memory that ranks share,
    from 1 on; 0: here.
    """

    version: int
    settings: AttackSettings
    stop: Stop = Stop.NO
    published_at: float = 0.0
    prober: int = 0
    place: int = 0


@dataclass(frozen=True, kw_only=True)
class BatchHeader:
    """What an attacker tells of a ticket, before its batch; without one where it is not crafted."""

    fate: Fate
    origin: Provenance
    report: CraftReport
    seconds: RankSeconds
    probe: Probed


@dataclass(frozen=True, kw_only=True)
class Call:
    """A word, and what it is about: the grant, or the rank that is gone."""

    word: Word
    grant: Grant = NO_GRANT
    gone: int = -1


@dataclass(frozen=True, kw_only=True)
class Release:
    """An attacker reads the version in this place no more; `ALL_PLACES`: none any more."""

    place: int


ALL_PLACES = 0


@dataclass(frozen=True, kw_only=True)
class Farewell:
    """What an attacker says last."""

    work: RankWork
    probe: Probed


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What comes before a text."""

    sign: Sign
    size: int = 0
    checksum: int = 0


def aligned(num_bytes: int) -> int:
    """`num_bytes` rounded up to the alignment."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


@cache
def header_type(said: type) -> np.dtype[np.void]:
    """How a header of the dataclass `said` travels: whole blocks, with a seal at the end."""
    record = record_type(said)
    padding = aligned(record.itemsize + SEAL_BYTES) - record.itemsize - SEAL_BYTES
    return np.dtype([("said", record), ("padding", np.uint8, padding), ("seal", np.int64)])


BATCH_HEADER = header_type(BatchHeader)
PARAMETER_HEADER = header_type(VersionHeader)
LONGEST_HEADER = max(BATCH_HEADER.itemsize, PARAMETER_HEADER.itemsize)


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The arrays of a batch: images [num_images, *image_shape] in `wire_dtype`, and two of int64.

    `num_images`: None is `batch_size`, else attacks have made several of each image.
    `with_natural`, `with_notes`: whether the natural images travel, too, and what attacks that go
    on elsewhere have noted of each of theirs.
    """

    batch_size: int
    image_shape: tuple[int, int, int]
    num_images: int | None = None
    with_natural: bool = False
    with_notes: bool = False
    wire_dtype: WireDtype = "float32"

    @property
    def num_bytes(self) -> int:
        natural = self._image_bytes(self.batch_size) if self.with_natural else 0
        return self._images_start + self._image_bytes(self._num_images) + natural + ALIGNMENT

    @property
    def _num_images(self) -> int:
        return self.batch_size if self.num_images is None else self.num_images

    @property
    def _images_start(self) -> int:
        notes = self._num_images if self.with_notes else 0
        return aligned(BATCH_HEADER.itemsize + 8 * (self.batch_size + notes))

    def _image_bytes(self, count: int) -> int:
        value_bytes = WIRE_ARRAYS[self.wire_dtype].itemsize
        return aligned(count * prod(self.image_shape) * value_bytes)

    def labels(self, buffer: Bytes) -> npt.NDArray[np.int64]:
        """The labels in a batch's buffer: int64 [batch_size]."""
        return np.ndarray(self.batch_size, np.int64, buffer, BATCH_HEADER.itemsize)

    def notes(self, buffer: Bytes) -> npt.NDArray[np.int64] | None:
        """What attacks noted of each of their images, where that travels: int64 [num_images]."""
        if not self.with_notes:
            return None
        start = BATCH_HEADER.itemsize + 8 * self.batch_size
        return np.ndarray(self._num_images, np.int64, buffer, start)

    def images(self, buffer: Bytes) -> npt.NDArray[Any]:
        """The adversarial images in a batch's buffer: `WIRE_ARRAYS` [num_images, C, H, W]."""
        return self._image_array(buffer, self._images_start, self._num_images)

    def natural(self, buffer: Bytes) -> npt.NDArray[Any] | None:
        """The natural images, where they travel too: `WIRE_ARRAYS` [batch_size, C, H, W]."""
        if not self.with_natural:
            return None
        start = self._images_start + self._image_bytes(self._num_images)
        return self._image_array(buffer, start, self.batch_size)

    def _image_array(self, buffer: Bytes, start: int, count: int) -> npt.NDArray[Any]:
        shape = count, *self.image_shape
        return np.ndarray(shape, WIRE_ARRAYS[self.wire_dtype], buffer, start)


def header_of(buffer: Bytes, said: type) -> Header:
    """The header of the dataclass `said` at the start of a buffer."""
    dtype = header_type(said)
    return buffer[: dtype.itemsize].view(dtype)


def erased(said: type) -> Header:
    """What is to receive a header of the dataclass `said`."""
    header = np.zeros(1, header_type(said))
    erase(header.view(np.uint8))
    return header


def erase(buffer: Bytes) -> None:
    """Make the header and the end of what is to receive a message such as no message has."""
    buffer[:LONGEST_HEADER] = ERASED
    buffer[-SEAL_BYTES:] = ERASED


def write(header: Header, said: Any) -> None:
    """Write a header, but for its seal."""
    header["said"][0] = to_record(said)


def read(header: Header, said: type[SaidT]) -> SaidT:
    """What a header of the dataclass `said` says."""
    kind: Any = said  # to mypy a class is not always hashable
    told: SaidT = _read(kind, header.tobytes())
    return told


@lru_cache(_MOST_REMEMBERED)
def _read(said: Any, header: bytes) -> Any:
    """The same from its bytes, remembered: loops look at their buffers again and again."""
    return from_record(said, np.frombuffer(header, header_type(said))["said"][0].item())


def sealed(said: object) -> Header:
    """A message that is nothing but a header."""
    kind: type = type(said)
    header = np.zeros(1, header_type(kind))
    write(header, said)
    seal(header)
    return header


def seal(header: Header) -> None:
    """Complete a message's header."""
    header["seal"] = _checksum(header)


def seal_whole(buffer: Bytes, header: Header) -> None:
    """Complete a long message: its end says what its header does."""
    seal(header)
    _end_of(buffer)[:] = header["seal"]


def is_sealed(header: Header) -> bool:
    """Whether a header is as its sender completed it."""
    return int(header["seal"][0]) == _checksum(header)


def is_whole(buffer: Bytes, header: Header) -> bool:
    """Whether a long message has arrived from its beginning to its end."""
    return is_sealed(header) and int(_end_of(buffer)[0]) == int(header["seal"][0])


def checksum(message: Bytes) -> int:
    """What tells a message from one that did not arrive whole."""
    return zlib.crc32(message.data)


def _checksum(header: Header) -> int:
    return checksum(header.view(np.uint8)[:-SEAL_BYTES])


def _end_of(buffer: Bytes) -> npt.NDArray[np.int64]:
    return buffer[-SEAL_BYTES:].view(np.int64)
