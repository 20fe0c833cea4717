"""A table in an HDF5 file of its own, written anew with every change. Knows no study.

Plain h5py reads it; each column's unit or meaning is the attribute `unit:COLUMN` of the table. A
killed process leaves the file as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mpiadv.process.errors import UserError
from mpiadv.runlog import TRIAL
from mpiadv.runlog.rows import Layout, Rows
from mpiadv.storage.whole_files import whole_file

FORMAT_VERSION = 1
"""Attribute `format_version` of the file."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A kind of file: what its table is called, its layout, and how lost rows come again."""

    name: str
    layout: Layout
    remedy: str

    def read(self, path: Path) -> Rows:
        """All rows; none where there is no file.

        Raises:
            UserError: the file is damaged, or of another format.
        """
        if not path.exists():
            return np.empty(0, self.layout.dtype)
        try:
            TRIAL.require_readable(path)
            with h5py.File(path, "r", locking=False) as file:
                version = int(file.attrs["format_version"])
                if version != FORMAT_VERSION:
                    raise ValueError(f"it has format {version}, expected {FORMAT_VERSION}")
                rows: Rows = file[self.name][:]
                if rows.dtype.names != self.layout.dtype.names:
                    raise ValueError("its columns are others")
                return rows
        except Exception as error:  # what damaged files raise, nobody knows
            why = " ".join(str(error).split())
            raise UserError(
                f"{path} cannot be read as {self.name}: {why}: move it away, and {self.remedy}"
            ) from None

    def add(self, path: Path, objects: Sequence[object]) -> None:
        self.write(path, np.concatenate([self.read(path), self.rows(objects)]))

    def write(self, path: Path, rows: Rows) -> None:
        with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format_version"] = FORMAT_VERSION
            table = file.create_dataset(self.name, data=rows, dtype=self.layout.dtype)
            table.attrs.update({f"unit:{name}": unit for name, unit in self.layout.units.items()})

    def rows(self, objects: Sequence[object]) -> Rows:
        return np.array([self.layout.as_tuple(one) for one in objects], self.layout.dtype)
