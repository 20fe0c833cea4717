"""Reads logs of unknown state, also of a run that goes on."""

import os
from pathlib import Path
from typing import Any

import h5py

from mpiadv.process.errors import UserError
from mpiadv.runlog.rows import Rows
from mpiadv.runlog.trial import TRIAL, DamagedLogError, Trial


def open_to_read(path: Path, trial: Trial = TRIAL) -> h5py.File:
    """Open a log of unknown state, also one that is being written, once `trial` has read it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no log at {path}")
    try:
        trial.require_readable(path)
        return h5py.File(path, "r", locking=False)
    except (DamagedLogError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a log: {why}") from None


def read_table(path: str | Path, name: str) -> Rows:
    """All rows of a table, also of a log being written: structured array [rows].

    Raises:
        UserError: there is no log at `path`, or no such table in it.
    """
    with open_to_read(Path(path)) as file:
        if name not in file:
            raise UserError(f"{path} has no table {name!r}: it has {', '.join(file)}")
        rows: Rows = file[name][:]
        return rows


def read_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes of a log: configuration, versions, hosts, seeds.

    Raises:
        UserError: there is no log at `path`.
    """
    with open_to_read(Path(path)) as file:
        return dict(file.attrs)
