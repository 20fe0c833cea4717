"""A log in an unknown state: whether it is sound, and how it is cut back to a checkpoint.

A bit that was flipped on disk may crash the HDF5 library or keep it busy for ever. So all of this
is done in a process of its own, `python -m mpiadv.runlog.cutting`, by `mpiadv.runlog.trial`: one
request a line on its standard input, one answer a line on its standard output, both JSON. It ends
when its input does, and when it makes no progress.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpiadv.process.errors import UserError
from mpiadv.runlog.file import FORMAT_VERSION, Attributes, blocks, write_log_file
from mpiadv.runlog.rows import END_EVENTS, TEST, Rows, layouts_with_snapshots

Beat = Callable[[], object]
"""Called again and again while there is progress."""

_NEEDED = ("train", "evaluation", "events")
_BY_TICKET = ("train", "fresh", "tickets")
"""Tables whose row of step n is made again when training goes on at step n."""
_SHOWN_BLOCKS = 64
"""Of a table that is larger, a reader looks only here and there."""
_KINDS = {"i": "iu", "f": "fiu", "S": "SO"}


def main(silence_seconds: int) -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is nothing that anybody looks into
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends this process inside the library, too
    beat = partial(signal.alarm, silence_seconds)
    for line in sys.stdin:
        beat()
        print(json.dumps(_answer(json.loads(line), beat)), flush=True)
        signal.alarm(0)


def _answer(request: dict[str, Any], beat: Beat) -> dict[str, Any]:
    path, cut = Path(request["path"]), request["cut"]
    try:
        path.open("rb").close()
    except OSError as error:
        return {"failed": [error.errno, error.strerror]}
    try:
        _require_sound(path, beat, is_log=request["is_log"])
    except BaseException as error:
        return {"damaged": " ".join(str(error).split()) or type(error).__name__}
    try:
        return _cut_back(path, beat, **cut) if cut else {}
    except UserError as error:
        return {"refused": str(error)}
    except (OSError, RuntimeError) as error:  # h5py has both for a disk that is full
        return {"failed": [getattr(error, "errno", None), str(error)]}


def _require_sound(path: Path, beat: Beat, *, is_log: bool = True) -> None:
    """Read a file as its readers do, everything but the middle of large tables.

    With `is_log` it has to be a log that can be gone on with, too, and all of it is read.

    Raises:
        ValueError: it is not; or any other exception, for it may be damaged in whatever way.
    """
    with h5py.File(path, "r", locking=False) as file:
        dict(file.attrs)
        for item in _items(file):
            beat()
            dict(item.attrs)
            is_table = isinstance(item, h5py.Dataset) and _is_table(item)
            if is_log and isinstance(item, h5py.Dataset) and not is_table:
                raise ValueError(f"{item.name} is no table")
            for _ in blocks(item, None if is_log else _SHOWN_BLOCKS) if is_table else ():
                beat()
        if is_log:
            _require_log(file)


def _cut_back(
    path: Path,
    beat: Beat,
    *,
    step: int | None,
    num_steps: int,
    snapshot_shape: Sequence[int] | None,
    attributes: Attributes,
) -> dict[str, Any]:
    """Write a sound log anew without what a checkpoint of `step` does not know; the answer.

    Raises:
        UserError: it holds snapshots of another shape.
        OSError: the disk is full, or similar; the log is as it was.
    """
    first = step or 0

    def keep(name: str, rows: Rows) -> Rows:
        beat()
        if name == "events":
            rows = rows[~np.isin(rows["kind"], [kind.encode() for kind in END_EVENTS.values()])]
        elif name == "evaluation":
            is_of_test_images = np.isin(rows["images"], (b"", TEST.encode()))
            rows = rows[~(is_of_test_images & (rows["step"] == num_steps))]
        return rows[rows["step"] < first if name in _BY_TICKET else rows["step"] <= first]

    with h5py.File(path, "r", locking=False) as held_log:
        if step is None and len(held_log["train"]):
            return {"rows": len(held_log["train"])}
        held = _snapshot_shape(held_log)
        asked = None if snapshot_shape is None else tuple(snapshot_shape)
        if None not in (held, asked) and held != asked:
            raise UserError(
                f"{path} holds snapshots of shape {held}, not {asked}: "
                "set log.snapshot_images back, or turn snapshots off with log.snapshot_every=0"
            )
        shape = held or asked
        resumed = {"step": first, **attributes}
        layouts = layouts_with_snapshots(shape)
        write_log_file(path, layouts, source=held_log, keep=keep, resumed=resumed)
    return {"snapshot_shape": shape}


def _items(group: h5py.Group) -> Iterator[h5py.Dataset | h5py.Group]:
    """What is in a file, and in its groups: no deeper, for damaged ones may hold themselves."""
    for item in group.values():
        yield item
        if isinstance(item, h5py.Group):
            yield from item.values()


def _is_table(item: h5py.Dataset) -> bool:
    """Whether a data set is one.

    Raises:
        ValueError: it has more rows than its file can hold, which would be read for ever.
    """
    size = os.fstat(item.file.id.get_vfd_handle()).st_size
    if item.size is not None and item.size * item.dtype.itemsize > size:
        raise ValueError(f"{item.name} has more rows than the file can hold")
    return item.ndim == 1 and bool(item.dtype.names)


def _require_log(file: h5py.File) -> None:
    if file.attrs["format_version"] != FORMAT_VERSION:
        raise ValueError("another format")
    for name in _NEEDED:
        file[name]
    shape = _snapshot_shape(file)
    for name, layout in layouts_with_snapshots(shape).items():
        if name in file:
            _require_columns(file[name].dtype, layout.dtype)


def _require_columns(theirs: np.dtype[np.void], ours: np.dtype[np.void]) -> None:
    """A column that nobody knows has a damaged name, one that is missing is newer than the log."""
    if "step" not in (theirs.names or ()):
        raise ValueError("a table without steps")
    for name in theirs.names or ():
        if theirs[name].kind not in _KINDS.get(ours[name].kind, ours[name].kind):
            raise ValueError(f"{name} is a column of another kind")


def _snapshot_shape(file: h5py.File) -> tuple[int, ...] | None:
    if "snapshots" not in file:
        return None
    shape: tuple[int, ...] = file["snapshots"].dtype["images"].shape
    return shape


if __name__ == "__main__":
    main(int(sys.argv[1]))
