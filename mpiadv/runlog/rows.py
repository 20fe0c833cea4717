"""What the log's tables hold: columns, types, units. Knows no file.

A row class's fields are its table's columns: the field's name, its NumPy type and its unit or
meaning, said once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
"""A table in memory: a structured array [rows]."""


def column(dtype: str, unit: str) -> Any:
    """A field that is a column: its NumPy type, and its unit or meaning."""
    return field(metadata={"dtype": dtype, "unit": unit})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRow:
    """A training step."""

    step: int = column("i8", "training steps done before this one")
    ticket: int = column("i8", "number of the adversarial batch")
    first_version: int = column(
        "i8",
        "training steps behind the first attack step's parameters; the ticket if none is crafted",
    )
    last_version: int = column(
        "i8", "training steps behind those of the last one that was crafted; the ticket if none was"
    )
    first_staleness: int = column("i4", "training steps: ticket - first_version")
    last_staleness: int = column("i4", "training steps: ticket - last_version")
    rank: int = column("i4", "rank that crafted the batch")
    attack_steps: int = column("i4", "attack steps of the batch")
    epsilon: float = column("f8", "radius of the attack's ball, pixels of [0, 1]")
    learning_rate: float = column("f8", "learning rate of this step")
    loss: float = column("f8", "training objective, mean over the batch")
    accuracy: float = column("f8", "accuracy on the batch's adversarial images, 0 to 1")
    natural_accuracy: float = column("f8", "natural accuracy on the batch, 0 to 1; NaN: not taken")
    gradient_magnitude: float = column(
        "f8",
        "L1 norm of the loss gradient by the pixels at the last attack step, mean of samples; with "
        "m_plus and without attack steps that of the training step",
    )
    craft_seconds: float = column("f8", "seconds: crafting of the batch")
    parameter_wait_seconds: float = column(
        "f8", "seconds: crafting rank waiting for parameters on their way"
    )
    trainer_wait_seconds: float = column(
        "f8", "seconds: crafting rank waiting for parameters that the trainer had yet to reach"
    )
    grant_wait_seconds: float = column("f8", "seconds: crafting rank without a ticket")
    own_craft_seconds: float = column("f8", "seconds: trainer crafting since the last step")
    wait_seconds: float = column("f8", "seconds: trainer idle since the last step")
    train_seconds: float = column("f8", "seconds: training step")
    publish_seconds: float = column("f8", "seconds: publishing of parameters")
    wall_clock: float = column("f8", "seconds since 1970-01-01 UTC, at the end of the step")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRow:
    """An evaluation against one attack."""

    step: int = column("i8", "training steps done before the evaluation")
    attack: str = column("S64", "name of the attack (norm and radius of its ball, step size)")
    num_samples: int = column("i8", "test images")
    natural_accuracy: float = column("f8", "0 to 1")
    adversarial_accuracy: float = column("f8", "0 to 1")
    natural_loss: float = column("f8", "cross-entropy, mean over the images")
    adversarial_loss: float = column("f8", "cross-entropy, mean over the images")
    seconds: float = column("f8", "seconds: the evaluation")


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshRow:
    """A training batch attacked again, all of the attack on the parameters of its own step.

    There is none for a batch that came due while its rank was busy with another, or was lost.
    """

    step: int = column("i8", "training steps done before the one that trains on the batch")
    rank: int = column("i4", "rank that measured")
    accuracy: float = column(
        "f8",
        "accuracy on the batch's adversarial images attacked anew, 0 to 1; accuracy of /train at "
        "this step is on the same images as they were crafted",
    )
    loss: float = column(
        "f8",
        "cross-entropy, mean over the batch's adversarial images attacked anew; compares with loss "
        "of /train where no part of the batch stays natural",
    )
    seconds: float = column("f8", "seconds: attack and measurement")


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    """Something that happened."""

    wall_clock: float = column("f8", "seconds since 1970-01-01 UTC")
    step: int = column("i8", "training steps done before the event")
    kind: str = column("S32", "start, resume, ...")
    text: str = column("S256", "what happened; cut at 256 bytes of UTF-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackerRow:
    """What a crafting rank did between a start, or resume, of the run and its end."""

    step: int = column("i8", "training steps done at the end")
    rank: int = column("i4", "the crafting rank")
    host: str = column("S64", "its host")
    tickets: int = column("i8", "batches crafted")
    craft_seconds: float = column("f8", "seconds: crafting")
    parameter_wait_seconds: float = column("f8", "seconds: waiting for parameters on their way")
    trainer_wait_seconds: float = column(
        "f8", "seconds: waiting for parameters that the trainer had yet to reach"
    )
    grant_wait_seconds: float = column("f8", "seconds: without a ticket")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table's row type and columns: `as_tuple` turns a row object into a row of `dtype`."""

    dtype: np.dtype[np.void]
    units: Mapping[str, str]
    as_tuple: Callable[[Any], tuple[Any, ...]]
    first_room: int
    """Rows there is room for at first."""


def table_of(row_type: type, first_room: int) -> Table:
    """The table whose rows are objects of `row_type`."""
    columns = {item.name: item.metadata["dtype"] for item in fields(row_type)}
    lengths = [int(kind[1:]) if kind[0] == "S" else 0 for kind in columns.values()]
    values: Callable[[Any], tuple[Any, ...]] = attrgetter(*columns)

    def with_text(row: Any) -> tuple[Any, ...]:
        pairs = zip(values(row), lengths, strict=True)
        return tuple(cut_text(value, length) if length else value for value, length in pairs)

    return Table(
        dtype=np.dtype([(name, _stored_type(kind)) for name, kind in columns.items()]),
        units={item.name: item.metadata["unit"] for item in fields(row_type)},
        as_tuple=with_text if any(lengths) else values,
        first_room=first_room,
    )


def snapshot_table(shape: tuple[int, ...]) -> Table:
    """The table of snapshots: `images` float32 of `shape`, [N, C, H, W], beside their step."""
    return Table(
        dtype=np.dtype([("step", "i8"), ("images", "f4", shape)]),
        units={
            "step": "training steps done before the attack",
            "images": "adversarial test images [N, C, H, W], pixels in [0, 1]",
        },
        as_tuple=lambda row: row,
        first_room=4,
    )


def originals_table(shape: tuple[int, ...]) -> Table:
    """The table of what snapshots attack: one row, `images` as in `snapshot_table`."""
    return replace(
        snapshot_table(shape),
        units={
            "step": "training steps done before the first snapshot",
            "images": "the test images of /snapshots before the attack, pixels in [0, 1]",
        },
        first_room=1,
    )


def cut_text(text: str, length: int) -> bytes:
    """`text` in UTF-8, cut to at most `length` bytes, never inside a character."""
    data = text.encode("utf-8", errors="replace")
    return data[:length].decode("utf-8", errors="ignore").encode("utf-8")


def _stored_type(kind: str) -> Any:
    return h5py.string_dtype("utf-8", int(kind[1:])) if kind[0] == "S" else np.dtype(kind)


TABLES = {
    "train": table_of(TrainRow, 1024),
    "evaluation": table_of(EvaluationRow, 256),
    "fresh": table_of(FreshRow, 256),
    "events": table_of(EventRow, 256),
    "attackers": table_of(AttackerRow, 64),
}
"""The tables of every log, by name."""


def tables_with_snapshots(shape: tuple[int, ...] | None) -> dict[str, Table]:
    """The tables of a log; `shape` of a snapshot's images, [N, C, H, W], None: no snapshots."""
    if shape is None:
        return TABLES
    snapshots = {"snapshots": snapshot_table(shape), "snapshot_originals": originals_table(shape)}
    return {**TABLES, **snapshots}


def fitted(rows: Rows, table: Table) -> Rows:
    """Rows of an older log with the columns of now: NaN, zero or no text where it lacks one."""
    if rows.dtype.names == table.dtype.names:
        return rows.astype(table.dtype)
    new = np.zeros(len(rows), table.dtype)
    for name in table.dtype.names or ():
        if name in (rows.dtype.names or ()):
            new[name] = rows[name]
        elif table.dtype[name].kind == "f":
            new[name] = np.nan
    return new
