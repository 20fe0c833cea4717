"""What becomes of a log whose run goes on: it is cut back to the checkpoint, or moved aside."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpiadv.runlog.trial import DamagedLogError, Trial
from mpiadv.storage.whole_files import unused_name


def cut_back_or_begin(
    path: Path, cut: Mapping[str, Any], trial: Trial
) -> tuple[str, tuple[int, ...] | None]:
    """Cut the log at `path` back, or move it aside; why, or the shape of its snapshots.

    `cut`: see `Trial.cut_back`, which says what is raised. A log that cannot be read, or gone on
    with, is moved; where a reason is told, a new one has to be begun.
    """
    if not os.path.exists(path):
        return f"{path} is missing: a new log is begun", None
    try:
        done = trial.cut_back(path, cut)
    except DamagedLogError as error:
        aside = _move_aside(path, "damaged")
        return f"{path} could not be read ({error}): moved to {aside}, a new log is begun", None
    if "rows" in done:
        steps = f"{path} holds {done['rows']} steps, and there is no checkpoint to go on from"
        return f"{steps}: moved to {_move_aside(path, 'old')}, a new log is begun", None
    shape = done["snapshot_shape"]
    return "", None if shape is None else tuple(shape)


def _move_aside(path: Path, why: str) -> str:
    """Give a log another name, which is returned."""
    return path.rename(unused_name(path, why)).name
