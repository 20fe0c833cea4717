"""The file of measured speeds: a row for each measurement. Knows no torch, no MPI and no study.

Plain h5py reads it: `h5py.File("speed.h5")["measurements"][:]`; each column's unit or meaning is
the attribute `unit:COLUMN` of the table. Every addition writes the whole file anew, so that a
killed process leaves it as it was; one process at a time may add to it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from mpiadv.contract.columns import column
from mpiadv.emulation.scenario import Scenario
from mpiadv.runlog.row_files import RowFile
from mpiadv.runlog.rows import Rows, layout_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One run, warm-up excluded. Shares are of wall-clock time, 0 to 1; NaN: not measured."""

    ranks: int = column("i4", "ranks, the trainer among them")
    trainer_crafts: bool = column("i1", "1: the trainer crafts, too; 0: it only trains")
    repeat: int = column("i4", "number of the measurement among its like, from 0")
    num_steps: int = column("i8", "training steps measured")
    train_seconds: float = column("f8", "seconds: a training step alone")
    craft_seconds: float = column("f8", "seconds: crafting of a batch alone")
    ticket_seconds: float = column("f8", "seconds: wall clock per ticket")
    idle: float = column("f8", "share of the trainer's time in which it waited for a batch")
    late: float = column("f8", "share of the trainer's time: its device done, and not noticed")
    parameter_wait: float = column(
        "f8", "share of the attackers' time in which they waited for parameters on their way"
    )
    trainer_wait: float = column(
        "f8", "share of the attackers' time in which they waited for parameters yet to be published"
    )
    grant_wait: float = column("f8", "share of the attackers' time in which they had no ticket")
    first_staleness: float = column("f8", "training steps, first attack step, mean of tickets")
    first_staleness_worst: int = column("i4", "training steps, first attack step, worst ticket")
    last_staleness: float = column("f8", "training steps, last attack step, mean of tickets")
    last_staleness_worst: int = column("i4", "training steps, last attack step, worst ticket")
    own_seconds: float = column(
        "f8", "CPU seconds of the trainer per ticket outside emulated work and copies"
    )
    copy_seconds: float = column(
        "f8", "CPU seconds of the trainer per ticket: snapshots, taking batches out of messages"
    )
    poll_seconds: float = column(
        "f8", "CPU seconds of the trainer per ticket: moving messages while its device was busy"
    )
    cores: float = column(
        "f8", "CPU seconds of all ranks by wall clock times cores; warm-up included"
    )
    others: float = column("f8", "the same of everything else on the machine")
    scenario: str = column("S640", "what was emulated, as JSON; empty: real work")


MEASUREMENTS = RowFile(
    name="measurements", layout=layout_of(Measured, 64), remedy="they are made again"
)


def scenario_text(scenario: Scenario) -> str:
    """A scenario as the column `scenario` holds it, and as the emulated ranks take it."""
    said = asdict(scenario)
    for name in ("tickets_per_step", "trainers"):  # which older ones do not know
        if said[name] == 1:
            del said[name]
    return json.dumps(said, separators=(",", ":"))


def key_of(scenario: Scenario, ranks: int, repeat: int) -> tuple[Any, ...]:
    """What tells a measurement from others, as `keys` gives it of rows."""
    return scenario_text(scenario).encode(), ranks, repeat


def keys(rows: Rows) -> list[tuple[Any, ...]]:
    """What tells each row from others: the columns scenario, ranks and repeat."""
    columns: list[tuple[Any, ...]] = rows[["scenario", "ranks", "repeat"]].tolist()
    return columns
