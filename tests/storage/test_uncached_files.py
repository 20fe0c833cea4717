"""Files written past the page cache: the same bytes, wherever that cannot be, and errors told."""

import errno
import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk_faults import largest_file

from mpiadv.storage.uncached_files import PIECE_BYTES, UncachedFile

LENGTHS = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 4097)


def write(path: Path, data: bytes, *, most_at_once: int) -> None:
    """Write `data` in parts of random lengths."""
    draws, start = random.Random(0), 0
    with UncachedFile(path) as file:
        while start < len(data):
            count = draws.randint(1, most_at_once)
            part = data[start : start + count]
            assert file.write(part) == len(part)
            start += count
        file.finish()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("most_at_once", [100_000, 3 * PIECE_BYTES])
def test_what_is_written_is_there(tmp_path: Path, length: int, most_at_once: int) -> None:
    data = random.Random(length).randbytes(length)
    write(tmp_path / "file", data, most_at_once=most_at_once)
    assert (tmp_path / "file").read_bytes() == data


def test_all_but_the_last_piece_goes_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} caches all files: {error}")
    really_write, past = os.write, list[bool]()

    def watched(descriptor: int, data: Any) -> int:
        past.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return really_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", watched)
        write(tmp_path / "file", bytes(2 * PIECE_BYTES + 5), most_at_once=PIECE_BYTES)
    assert past == [True, True, False]


def test_longer_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old and long")
    write(tmp_path / "file", b"new", most_at_once=3)
    assert (tmp_path / "file").read_bytes() == b"new"


def refuses_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def refusing(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)


def refuses_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    really_write, refused = os.write, list[int]()

    def refusing(descriptor: int, data: Any) -> int:
        if not refused:
            refused.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_write(descriptor, data)

    monkeypatch.setattr(os, "write", refusing)


def writes_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    really_write = os.write
    # Whole blocks of the disk, but no whole pages.
    monkeypatch.setattr(os, "write", lambda file, data: really_write(file, data[:1_000_448]))


@pytest.mark.parametrize("behaves", [refuses_to_open, refuses_to_write, writes_parts])
def test_file_system_that_knows_no_such_files_has_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaves: Callable[[pytest.MonkeyPatch], None]
) -> None:
    data = random.Random(1).randbytes(2 * PIECE_BYTES + 5)
    with monkeypatch.context() as patch:
        behaves(patch)
        write(tmp_path / "file", data, most_at_once=PIECE_BYTES)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("limit", [0, 5000, PIECE_BYTES, PIECE_BYTES + 5000])
def test_full_disk_is_an_error(tmp_path: Path, limit: int) -> None:
    data = bytes(PIECE_BYTES + 6000)
    with largest_file(limit), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "file", data, most_at_once=PIECE_BYTES)


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        UncachedFile(tmp_path / "missing" / "file")
