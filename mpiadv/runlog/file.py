"""The HDF5 file behind a log: tables that grow without ever being torn. Knows no column by name.

See the package's docstring for why a table is a single chunk.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from mpiadv.runlog.rows import Layout, Rows, fitted
from mpiadv.storage.whole_files import whole_file

FORMAT_VERSION = 1
"""Attribute `format_version` of the file."""

Attributes = Mapping[str, str | int | float]
WriteAt = Callable[[int, bytes], None]
WRITER_OPTIONS = {"libver": "earliest", "rdcc_nbytes": 0}
"""Plain readers can open the earliest format at any time. A chunk cache would hold rows that
are written past it."""
_COPIED_AT_ONCE = 2**20
"""Bytes. The allocator would keep much larger blocks for itself once they are free."""
_LARGEST_CHUNK = 2**30
"""Bytes; HDF5 itself allows 2^32. A larger table goes on in further chunks, as HDF5 makes them."""


def open_for_writing(path: Path) -> h5py.File:
    """Open a log to append to it, without locking readers out."""
    return h5py.File(path, "r+", locking=False, **WRITER_OPTIONS)


def write_log_file(
    path: Path,
    layouts: Mapping[str, Layout],
    *,
    source: h5py.File | None = None,
    keep: Callable[[str, Rows], Rows] = lambda name, rows: rows,
    more: Mapping[str, Rows] | None = None,
    attributes: Attributes | None = None,
    resumed: Attributes | None = None,
) -> None:
    """Write a whole new log, replacing what is at `path`.

    It holds the rows of `source` that `keep(table, rows)` lets through, then `more`; the
    attributes of `source`, then `attributes`; and `resumed` as the newest member of `/resumes`.
    """
    with (
        whole_file(path) as temporary,
        h5py.File(temporary, "w", locking=False, **WRITER_OPTIONS) as new,
    ):
        new.attrs.update(source.attrs if source else {})
        new.attrs.update(attributes or {})
        _copy_resumes(source, new, resumed)
        for name, layout in layouts.items():
            added = (more or {}).get(name, np.empty(0, layout.dtype))
            kept = source[name] if source and name in source else None
            room = len(added) + (0 if kept is None else len(kept))
            dataset = _create_table(new, name, layout, room)
            for rows in blocks(kept):
                _append_chunks(dataset, keep(name, fitted(rows, layout)))
            _append_chunks(dataset, added)


def lacks_room(dataset: h5py.Dataset, count: int) -> bool:
    """Whether `count` more rows need a new file. An empty table's chunk is not there yet."""
    (room,) = dataset.chunks
    full = len(dataset) == 0 or len(dataset) + count > room
    return bool(full and room < _largest_room(dataset.dtype))


def writer_at(file: h5py.File) -> WriteAt:
    """A function that writes bytes at an offset of an open log's file, past HDF5."""
    descriptor = file.id.get_vfd_handle()

    def write_at(offset: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            count = os.pwrite(descriptor, left, offset)
            left, offset = left[count:], offset + count

    return write_at


def append_rows(dataset: h5py.Dataset, rows: Rows, write_at: WriteAt) -> None:
    """Put rows behind the last one of a table that does not lack room, then count them.

    HDF5 would count them first, and could not take that back when the disk turns out to be full.

    Raises:
        OSError: the disk is full, or similar; the table is as it was.
    """
    length = len(dataset)
    if length + len(rows) > dataset.chunks[0]:
        _append_chunks(dataset, rows)
        return
    chunk_offset = dataset.id.get_chunk_info(0).byte_offset
    write_at(chunk_offset + length * rows.itemsize, rows.tobytes())
    dataset.resize((length + len(rows),))


class Sync:
    """Brings to disk what an open log's file held when this was made; called once, by any thread.

    `failed` tells whether that went wrong: the disk may then have lost any of it, and would not say
    so a second time, so the file has to be written anew.
    """

    def __init__(self, file: h5py.File) -> None:
        self.failed = False
        # Its own descriptor: the log may be closed, or go on in another file, meanwhile.
        self._descriptor = os.dup(file.id.get_vfd_handle())

    def __call__(self) -> None:
        """Raises OSError: the disk did not take it."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.failed = True
            raise
        finally:
            os.close(self._descriptor)


def is_deleted(file: h5py.File) -> bool:
    """Whether an open log's file has no name any more: nobody else will ever read it."""
    return os.fstat(file.id.get_vfd_handle()).st_nlink == 0


def blocks(dataset: h5py.Dataset | None, most: int | None = None) -> Iterator[Rows]:
    """All rows of a table, not too many at once; of those blocks `most`, from first to last."""
    if dataset is None:
        return
    step = max(1, _COPIED_AT_ONCE // dataset.dtype.itemsize)
    starts: Sequence[int] = range(0, len(dataset), step)
    if most is not None and len(starts) > most:
        starts = [starts[index] for index in np.linspace(0, len(starts) - 1, most).astype(int)]
    for start in starts:
        yield dataset[start : start + step]


def _append_chunks(dataset: h5py.Dataset, rows: Rows) -> None:
    """Append by HDF5 alone, which makes the chunks: for a file that nobody reads yet."""
    length = len(dataset)
    if len(rows):
        dataset.resize((length + len(rows),))
        dataset[length:] = rows


def _create_table(file: h5py.File, name: str, layout: Layout, num_rows: int) -> h5py.Dataset:
    room = layout.first_room
    while room < num_rows:
        room *= 2
    dataset = file.create_dataset(
        name,
        shape=(0,),
        maxshape=(None,),
        dtype=layout.dtype,
        chunks=(min(room, _largest_room(layout.dtype)),),
        fill_time="never",  # leaves the unused room a hole
    )
    dataset.attrs.update({f"unit:{column}": unit for column, unit in layout.units.items()})
    return dataset


def _largest_room(dtype: np.dtype[np.void]) -> int:
    return max(1, _LARGEST_CHUNK // dtype.itemsize)


def _copy_resumes(source: h5py.File | None, target: h5py.File, resumed: Attributes | None) -> None:
    if source and "resumes" in source:
        source.copy("resumes", target)
    if resumed is not None:
        resumes = target.require_group("resumes")
        resumes.create_group(f"{len(resumes) + 1:04d}").attrs.update(resumed)
