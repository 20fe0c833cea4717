"""What the log's tables hold: columns, types, units. Knows no file.

The fields of a row's class, and of its parts, are its table's columns: see `contract.columns`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mpiadv.contract.accounts import Probed, RankWork, StepRecord, TicketRecord
from mpiadv.contract.columns import column, columns_of, cut_text
from mpiadv.storage.run_folder import BEST, EMA, GOOD, RAW

Rows = npt.NDArray[np.void]
"""A table in memory: a structured array [rows]."""

TEST, HELD_OUT, TRAIN = "test", "held out", "train"
"""The images of an evaluation; those held out are of the training set, and not trained on."""

END_EVENTS = {RAW: "end", EMA: "ema end", BEST: "best end", GOOD: "good end"}
"""Kinds of the events that tell the hash of a finished run's model, by the name of its weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRow:
    """An evaluation against one attack."""

    step: int = column("i8", "training steps done before the evaluation")
    attack: str = column("S64", "name of the attack (norm and radius of its ball, step size)")
    num_samples: int = column("i8", "images")
    natural_accuracy: float = column("f8", "0 to 1")
    adversarial_accuracy: float = column("f8", "0 to 1")
    natural_loss: float = column("f8", "cross-entropy, mean over the images")
    adversarial_loss: float = column("f8", "cross-entropy, mean over the images")
    seconds: float = column("f8", "seconds: the evaluation")
    weights: str = column(
        "S8",
        "raw: the weights as trained (also where older logs have no text), ema: their average, "
        "best: those of either that withstood most on images held out, natural, attacked: raw, "
        "through the batch norm that evaluation.branch does not name",
    )
    images: str = column(
        "S8",
        "test (also where older logs have no text), held out: of the training set, and not trained "
        "on; train",
        default=TEST,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    """Something that happened."""

    wall_clock: float = column("f8", "seconds since 1970-01-01 UTC")
    step: int = column("i8", "training steps done before the event")
    kind: str = column("S32", "start, resume, ...")
    text: str = column("S256", "what happened; cut at 256 bytes of UTF-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackerRow:
    """What a crafting rank did."""

    step: int = column("i8", "training steps done at the end")
    work: RankWork


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table's row type and columns: `as_tuple` turns a row object into a row of `dtype`."""

    dtype: np.dtype[np.void]
    units: Mapping[str, str]
    as_tuple: Callable[[Any], tuple[Any, ...]]
    first_room: int
    """Rows there is room for at first."""


def layout_of(row_type: type, first_room: int) -> Layout:
    """The table whose rows are objects of `row_type`."""
    columns = columns_of(row_type)
    lengths = [int(c.kind[1:]) if c.kind[0] == "S" else 0 for c in columns]
    values: Callable[[Any], tuple[Any, ...]] = attrgetter(*(c.path for c in columns))

    def with_text(row: Any) -> tuple[Any, ...]:
        pairs = zip(values(row), lengths, strict=True)
        return tuple(cut_text(value, length) if length else value for value, length in pairs)

    return Layout(
        dtype=np.dtype([(c.name, _stored_type(c.kind)) for c in columns]),
        units={c.name: c.unit for c in columns},
        as_tuple=with_text if any(lengths) else values,
        first_room=first_room,
    )


def _stored_type(kind: str) -> Any:
    return h5py.string_dtype("utf-8", int(kind[1:])) if kind[0] == "S" else np.dtype(kind)


LAYOUTS = {
    "train": layout_of(StepRecord, 1024),
    "evaluation": layout_of(EvaluationRow, 256),
    "fresh": layout_of(Probed, 256),
    "tickets": layout_of(TicketRecord, 1024),
    "events": layout_of(EventRow, 256),
    "attackers": layout_of(AttackerRow, 64),
}
"""The tables of every log, by name."""


def layouts_with_snapshots(shape: tuple[int, ...] | None) -> dict[str, Layout]:
    """The tables of a log; `shape` of a snapshot's images, [N, C, H, W], None: no snapshots."""
    if shape is None:
        return LAYOUTS
    snapshots = Layout(
        dtype=np.dtype([("step", "i8"), ("images", "f4", shape)]),
        units={
            "step": "training steps done before the attack",
            "images": "adversarial test images [N, C, H, W], pixels in [0, 1]",
        },
        as_tuple=lambda row: row,
        first_room=4,
    )
    units = {
        "step": "training steps done before the first snapshot",
        "images": "the test images of /snapshots before the attack, pixels in [0, 1]",
    }
    originals = replace(snapshots, units=units, first_room=1)
    return {**LAYOUTS, "snapshots": snapshots, "snapshot_originals": originals}


def fitted(rows: Rows, layout: Layout) -> Rows:
    """Rows of an older log with the columns of now: NaN, zero or no text where it lacks one."""
    if rows.dtype.names == layout.dtype.names:
        return rows.astype(layout.dtype)
    new = np.zeros(len(rows), layout.dtype)
    for name in layout.dtype.names or ():
        if name in (rows.dtype.names or ()):
            new[name] = rows[name]
        elif layout.dtype[name].kind == "f":
            new[name] = np.nan
    return new
