"""The log of a run in memory: tables as NumPy has them, or pandas. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mpiadv.process.errors import UserError
from mpiadv.report.reading import find_log, flat_config, starts_of
from mpiadv.runlog import opened
from mpiadv.runlog.rows import LAYOUTS, Rows, fitted, layouts_with_snapshots

if TYPE_CHECKING:
    import pandas

_TABLES = layouts_with_snapshots(())
"""All tables, also those that only logs of runs with snapshots have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunLog:
    """The log of a run as it was when it was read; each table is a structured array [rows].

    Attributes:
        path: of the file.
        config: the newest start's configuration, flat: `training.num_steps` and so on.
        attributes: what the newest start said of itself: versions, hosts, device, seed, ...
        train: a row for each training step.
        tickets: a row for each batch, where training steps take several.
        evaluation: a row for each evaluation and attack; accuracies from 0 to 1.
        fresh: a row for each training batch attacked again on the parameters of its own step.
        events: what happened, and when; its texts are bytes in UTF-8.
        attackers: a row for each crafting rank each time the run ended.
    """

    path: Path
    config: Mapping[str, Any]
    attributes: Mapping[str, Any]
    train: Rows
    tickets: Rows
    evaluation: Rows
    fresh: Rows
    events: Rows
    attackers: Rows

    @property
    def snapshots(self) -> Rows:
        """The same test images, attacked at regular steps; read at each call, as it may be large.

        `images` of a row: float32 [N, C, H, W] in [0, 1].
        """
        return self._read_images("snapshots")

    @property
    def snapshot_originals(self) -> Rows:
        """Those images before the attack: one row, or none."""
        return self._read_images("snapshot_originals")

    @property
    def hash(self) -> str:
        """The final model's hash; empty as long as the run has not ended."""
        ends = self.events[self.events["kind"] == b"end"]
        return ends[-1]["text"].decode().removeprefix("hash ") if len(ends) else ""

    @staticmethod
    def units(table: str) -> Mapping[str, str]:
        """Unit or meaning of each column of a table. Raises UserError: there is no such table."""
        _require_known(table)
        return _TABLES[table].units

    def to_pandas(self, table: str) -> "pandas.DataFrame":
        """A table as a DataFrame, its texts as str; images as one array for each row.

        Raises:
            UserError: there is no such table, or no pandas.
        """
        _require_known(table)
        try:
            import pandas
        except ImportError:
            told = "to_pandas needs pandas, which is not installed: pip install pandas"
            raise UserError(told) from None
        rows: Rows = getattr(self, table)
        return pandas.DataFrame({name: _cells(rows[name]) for name in rows.dtype.names or ()})

    def _read_images(self, table: str) -> Rows:
        with opened(self.path) as file:
            return _rows(file.get(table))


def read_log(run: str | Path) -> RunLog:
    """Read the log of a run's folder, or a log, also while the run writes it.

    A column that an older log lacks is NaN, 0 or empty.

    Raises:
        UserError: there is none, it cannot be read, or it has another format.
    """
    return read_found(find_log(run))


def read_found(path: Path, *, is_sound: bool = False) -> RunLog:
    """As `read_log`, of a log at `path`; `is_sound` as for `opened`."""
    with opened(path, is_sound=is_sound) as file:
        attributes = {key: value for start in starts_of(file) for key, value in start.items()}
        tables = {name: fitted(_rows(file.get(name)), layout) for name, layout in LAYOUTS.items()}
    config = flat_config(path, attributes.get("config", ""))
    return RunLog(path=path, config=config, attributes=attributes, **tables)


def _rows(dataset: Any) -> Rows:
    return np.empty(0, np.dtype([])) if dataset is None else dataset[:]


def _cells(column: npt.NDArray[Any]) -> Any:
    if column.dtype.kind == "S":
        return [cell.decode(errors="replace") for cell in column]
    return list(column) if column.ndim > 1 else column


def _require_known(table: str) -> None:
    if table not in _TABLES:
        raise UserError(f"a log has no table {table!r}: it has {', '.join(_TABLES)}")
