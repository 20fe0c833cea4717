"""What trainers of a job tell each other before their first step and after their last."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpiadv.comm.messages import Farewell
from mpiadv.comm.roster import Absence
from mpiadv.contract.columns import from_record, to_record
from mpiadv.process.errors import UserError
from mpiadv.session.setup import Setup
from mpiadv.storage.checkpoint import Checkpoint, read_payload


def share_checkpoint(setup: Setup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """What the lead goes on from, on every trainer; the others need not see its disk.

    Raises:
        UserError: the lead could not read it again.
    """
    trainers = setup.division.among_trainers
    if trainers is None:
        return checkpoint
    data = np.zeros(0, np.uint8)
    if checkpoint is not None:
        data = np.frombuffer(bytearray(_read(checkpoint.path)), np.uint8)
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


def gather_farewells(
    setup: Setup,
    farewells: Mapping[int, Farewell],
    events: Sequence[tuple[str, str]] = (),
    on_event: Callable[[str, str], None] = lambda kind, text: None,
) -> dict[int, Farewell]:
    """What the attackers of all teams said last, by the job's numbers, on the lead; else nothing.

    The lead's `on_event` hears of the `events` of others that they have not told yet, and the job's
    roster there knows who was lost from its team.
    """
    division, roster = setup.division, setup.division.team.roster
    if division.among_trainers is None:
        return dict(farewells)
    numbered = [_numbered(each, roster.number(rank)) for rank, each in farewells.items()]
    said = {
        "farewells": list(map(to_record, numbered)),
        "absent": {roster.number(rank): why.value for rank, why in roster.absent.items()},
        "events": list(events),
    }
    texts = division.among_trainers.gather(json.dumps(said, default=_plain))
    if not division.among_trainers.is_trainer:
        return {}
    everybody: dict[int, Farewell] = {}
    for told in (json.loads(text) for text in texts if text):
        for record in told["farewells"]:
            farewell = from_record(Farewell, _as_tuple(record))
            everybody[farewell.work.rank] = farewell
        for rank, why in told["absent"].items():
            setup.world.roster.lose(int(rank), Absence(why))
        for kind, text in told["events"]:
            on_event(kind, text)
    return everybody


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} again, for the other trainers: {error}") from None


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
