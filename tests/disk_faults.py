"""Disks that fail, for tests: full, read-only, gone. All but `tiny_disk` need no privileges."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CAPABILITY_VERSION = 0x20080522
_MAY_PASS_PERMISSIONS = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def largest_file(size: int, pid: int = 0) -> Iterator[None]:
    """Writing a file beyond `size` bytes fails in a process, as on a full disk, but with EFBIG."""
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does for itself
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """No file can be made in a folder, by root neither; threads begun meanwhile are bound too."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    effective, permitted, inheritable = _capabilities()
    _set_capabilities(effective & ~_MAY_PASS_PERMISSIONS, permitted, inheritable)
    try:
        yield
    finally:
        _set_capabilities(effective, permitted, inheritable)
        folder.chmod(0o755)


@contextlib.contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """What was a folder is none any more, for a while."""
    aside = folder.with_name(folder.name + "-aside")
    folder.mkdir(exist_ok=True)
    folder.rename(aside)
    folder.write_text("in the way", encoding="utf-8")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


@contextlib.contextmanager
def tiny_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system of its own, in memory; skips where none may be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Fill up a file system but for so many bytes; the file that does."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    filler.write_bytes(b"x" * max(0, free.f_bfree * free.f_frsize - leave))
    return filler


def _capabilities() -> tuple[int, int, int]:
    data = (ctypes.c_uint32 * 6)()
    _call("capget", data)
    return data[0], data[1], data[2]


def _set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    data = (ctypes.c_uint32 * 6)()
    _call("capget", data)
    data[0], data[1], data[2] = effective, permitted, inheritable
    _call("capset", data)


def _call(name: str, data: ctypes.Array[ctypes.c_uint32]) -> None:
    """Of this thread alone, the first 32 capabilities."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if getattr(ctypes.CDLL(None, use_errno=True), name)(header, data) != 0:
        raise OSError(ctypes.get_errno(), name)
