"""Files that are written past the page cache. Knows no file format.

A large file that is hardly ever read back only drives others out of the cache, and a page of memory
for it costs more to get than to copy to: several times as much in a virtual machine, which has to
get it from its host first.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Self

PIECE_BYTES = 2**22
"""What is written at a time: disks take whole blocks, from the start of a page of memory."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)


class UncachedFile:
    """A file being written from its start, in place of what was at `path`.

    Its last piece goes through the page cache, and all of it where the file system cannot do
    otherwise. One that could not be written to is not to be written to again.

    Raises:
        OSError: no file can be made there.
    """

    def __init__(self, path: Path) -> None:
        self._piece = mmap.mmap(-1, PIECE_BYTES)
        self._filled = 0
        self._descriptor = _open(path)

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes, part of them later; returns how many they are.

        Raises:
            OSError: the disk is full, or similar.
        """
        view = memoryview(data)
        start = 0
        while start < len(view):
            count = min(len(view) - start, PIECE_BYTES - self._filled)
            self._piece[self._filled : self._filled + count] = view[start : start + count]
            self._filled += count
            start += count
            if self._filled == PIECE_BYTES:
                self._write_piece()
        return len(view)

    def finish(self) -> None:
        """Write the rest, and bring all to disk.

        Raises:
            OSError: the disk is full, or similar.
        """
        _use_cache(self._descriptor)  # the rest is no whole block
        self._write_piece()
        os.fsync(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def _write_piece(self) -> None:
        with memoryview(self._piece) as piece:
            start = 0
            while start < self._filled:
                start += _write(self._descriptor, piece[start : self._filled])
        self._filled = 0


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return os.open(path, flags, 0o666)


def _write(descriptor: int, data: memoryview) -> int:
    try:
        return os.write(descriptor, data)
    except OSError as error:
        # A disk of larger blocks than a page refuses a piece, every disk the rest of a partly
        # written one.
        if error.errno not in _REFUSALS:
            raise
        _use_cache(descriptor)
        return os.write(descriptor, data)


def _use_cache(descriptor: int) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
