"""What trainers of a job tell each other before their first step and after their last."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpiadv.comm.messages import Farewell
from mpiadv.comm.roster import Absence
from mpiadv.contract.columns import from_record, to_record
from mpiadv.session.setup import Setup
from mpiadv.storage.checkpoint import Checkpoint, read_payload


def share_checkpoint(setup: Setup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """What the lead goes on from, on every trainer; the others need not see its disk.

    Raises:
        OSError: the lead could not read it again.
    """
    trainers = setup.division.trainers
    if trainers is None:
        return checkpoint
    data = np.zeros(0, np.uint8)
    if checkpoint is not None:
        data = np.frombuffer(bytearray(checkpoint.path.read_bytes()), np.uint8)
    step = checkpoint.step if checkpoint else 0
    path = str(checkpoint.path) if checkpoint else ""
    said = json.loads(trainers.share(json.dumps([data.size, step, path])))
    size, step, path = said
    if not size:
        return None
    if checkpoint is None:
        data = np.zeros(size, np.uint8)
    trainers.spread(data)
    if checkpoint is not None:
        return checkpoint
    payload = read_payload(io.BytesIO(data.tobytes()), Path(path))
    return Checkpoint(step=step, path=Path(path), payload=payload)


def gather_farewells(setup: Setup, farewells: Mapping[int, Farewell]) -> dict[int, Farewell]:
    """What the attackers of all teams said last, by the job's numbers, on the lead; else nothing.

    The job's roster knows then, too, who was lost from its team.
    """
    division, roster = setup.division, setup.division.team.roster
    if division.trainers is None:
        return dict(farewells)
    said = {
        "farewells": [
            to_record(_numbered(f, roster.number(rank))) for rank, f in farewells.items()
        ],
        "absent": {roster.number(rank): why.value for rank, why in roster.absent.items()},
    }
    everybody: dict[int, Farewell] = {}
    for text in division.trainers.gather(json.dumps(said, default=_plain)):
        told = json.loads(text) if text else {"farewells": [], "absent": {}}
        for record in told["farewells"]:
            farewell = from_record(Farewell, _as_tuple(record))
            everybody[farewell.work.rank] = farewell
        for rank, why in told["absent"].items():
            setup.world.roster.lose(int(rank), Absence(why))
    return everybody


def _numbered(farewell: Farewell, rank: int) -> Farewell:
    return replace(farewell, work=replace(farewell.work, rank=rank))


def _plain(value: bytes) -> str:
    return value.decode(errors="replace")


def _as_tuple(record: list[Any]) -> tuple[Any, ...]:
    """A record as `from_record` takes it, whose text is bytes and whose parts are tuples."""
    return tuple(
        _as_tuple(value)
        if isinstance(value, list)
        else value.encode()
        if isinstance(value, str)
        else value
        for value in record
    )
