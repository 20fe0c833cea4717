"""Reads logs of unknown state, also of a run that goes on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mpiadv.process.errors import UserError
from mpiadv.runlog.file import FORMAT_VERSION
from mpiadv.runlog.rows import Rows
from mpiadv.runlog.trial import TRIAL, DamagedLogError

_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises on damaged files."""


@contextmanager
def opened(path: Path, *, is_sound: bool = False) -> Iterator[h5py.File]:
    """A log of unknown state to read from, also while the run writes it, once it has been tried.

    One that `is_sound` needs no trial: this process has just written it, to its end.

    Raises:
        UserError: there is none, it cannot be read, within the block either, or has another format.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no log at {path}")
    try:
        if not is_sound:
            TRIAL.require_readable(path)
        with h5py.File(path, "r", locking=False) as file:
            _require_format(path, dict(file.attrs))
            yield file
    except UserError:
        raise
    except (DamagedLogError, *_UNREADABLE) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a log: {why or type(error).__name__}") from None


def read_table(path: str | Path, name: str) -> Rows:
    """All rows of a table, also of a log being written: structured array [rows].

    Raises:
        UserError: there is no log at `path`, or no such table in it.
    """
    with opened(Path(path)) as file:
        if name not in file:
            raise UserError(f"{path} has no table {name!r}: it has {', '.join(file)}")
        rows: Rows = file[name][:]
        return rows


def read_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes of a log: configuration, versions, hosts, seeds.

    Raises:
        UserError: there is no log at `path`.
    """
    with opened(Path(path)) as file:
        return dict(file.attrs)


def _require_format(path: Path, attributes: Mapping[str, Any]) -> None:
    if "format_version" not in attributes:
        raise UserError(f"{path} is not a log of mpiadv: it has no format_version")
    version = int(attributes["format_version"])
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has log format {version}, this mpiadv reads format {FORMAT_VERSION}: "
            "use the mpiadv that wrote it, or a newer one"
        )
