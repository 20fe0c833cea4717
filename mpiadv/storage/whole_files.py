"""Files that appear whole or not at all, whatever kills the process. Knows no file format."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
"""Ending of a file that is still being written; one left behind by a killed process is rubbish."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what was written there then takes the name `path`.

    The file is on disk before it takes the name, and the name before this returns, so a killed
    process or a lost machine leaves the old file or the new one. If the body raises, the old one
    stays. One writer at a time: the temporary name is fixed, so leftovers do not pile up.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unused_name(path: Path, ending: str) -> Path:
    """The first of `path.ENDING-1`, `path.ENDING-2`, ... that no file has."""
    number = 1
    while (unused := path.with_name(f"{path.name}.{ending}-{number}")).exists():
        number += 1
    return unused


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
