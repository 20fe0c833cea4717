"""The folder of a run: who may use it, and what lies where in it. Knows nothing of the contents."""

import os
import re
import socket
import stat
from enum import Enum
from pathlib import Path
from typing import Self

from mpiadv.process.errors import UserError
from mpiadv.storage.run_lock import LOCK_NAME, RunLock
from mpiadv.storage.small_files import read_small
from mpiadv.storage.whole_files import write_text

LOG_NAME = "log.h5"
RAW, EMA, BEST, GOOD = "raw", "ema", "best", "good"
"""The weights of a run that are saved: as trained, their moving average, those of either that
withstood most on images held out, and those before an overfitting that ended the run."""
NATURAL, ATTACKED = "natural", "attacked"
"""In the place of the weights' name: as trained, through the batch norm of natural or of
adversarial images, where the run looks through the other."""
MODEL_NAMES = {RAW: "model.pt", EMA: "model-ema.pt", BEST: "best.pt", GOOD: "good.pt"}
CHECKPOINTS_NAME = "checkpoints"
_DONE_NAME = "DONE"
_TRACES_OF_A_RUN = (LOG_NAME, CHECKPOINTS_NAME, *MODEL_NAMES.values(), _DONE_NAME)


class RunFolder:
    """A run's folder, made and locked against other runs until `close`, or the `with` block's end.

    With `resume` a folder that holds a run is gone on with, and an empty one begun. `held_run`
    tells whether an earlier start of the run left anything in it.

    Raises:
        UserError: the folder cannot be made or written to, is in use by another run, holds
            something else under a name of a run's file, or holds a run and `resume` is false.
            Nothing but the lock file has been touched then.
    """

    def __init__(self, path: str | Path, *, resume: bool) -> None:
        self.path = Path(path)
        self.log = self.path / LOG_NAME
        self.checkpoints = self.path / CHECKPOINTS_NAME
        self._done = self.path / _DONE_NAME
        _make(self.path)
        _require_files(self.path)
        self.lock = RunLock(self.path)
        self.held_run = any(os.path.exists(self.path / name) for name in _TRACES_OF_A_RUN)
        if self.held_run and not resume:
            self.close()
            told = "a run that has not finished: add --resume to go on with it, or "
            told = "a finished run: " if self.is_done else told
            raise UserError(f"{self.path} holds {told}choose another folder with output=FOLDER")

    def model(self, weights: str) -> Path:
        """The final model's state dict, with the weights of that name, of `MODEL_NAMES`."""
        return self.path / MODEL_NAMES[weights]

    @property
    def is_done(self) -> bool:
        """Whether there is the mark of a finished run; launchers should trust no exit code."""
        return self._done.is_file()

    @property
    def result(self) -> str:
        return read_small(self._done).decode(errors="replace")

    def mark_done(self, text: str) -> None:
        write_text(self._done, text.rstrip("\n") + "\n")

    def close(self) -> None:
        self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RunState(Enum):
    """How a run stands, as its folder tells."""

    FINISHED = "finished"
    RUNNING = "running"
    STOPPED = "stopped"
    """It let the folder go before it was done: interrupted, or ended by an error."""
    KILLED = "killed"
    """It holds the folder, and its process is gone."""
    UNKNOWN = "a log alone"
    """The folder shows no trace of a process: the log was copied there."""


def state_of(folder: Path) -> RunState:
    """How the run in a folder stands, for people to read: it touches nothing, not even the lock.

    Whether a process of another host still runs cannot be seen: it counts as running.
    """
    if os.path.isfile(folder / _DONE_NAME):
        return RunState.FINISHED
    try:
        signature = read_small(folder / LOCK_NAME).decode(errors="replace")
    except OSError:
        return RunState.UNKNOWN
    signed = re.match(r"process (\d{1,18}) on host (\S+)", signature)
    if signed is None:
        return RunState.STOPPED
    if signed[2] == socket.gethostname() and not _is_alive(int(signed[1])):
        return RunState.KILLED
    return RunState.RUNNING


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = f"cannot create output folder {folder}: {error.strerror}"
        if isinstance(error, FileExistsError):
            told = f"output folder {folder} is {_what_is_at(folder)}"
        raise UserError(f"{told}: choose another folder with output=FOLDER") from None


def _require_files(folder: Path) -> None:
    """Refuse what is there under the name of a run's file, or folder, and is none."""
    for name in (*_TRACES_OF_A_RUN, LOCK_NAME):
        path, expected = folder / name, "folder" if name == CHECKPOINTS_NAME else "file"
        found = _what_is_at(path)
        if found not in ("", f"a {expected}"):
            raise UserError(
                f"{path} is {found}, where a run has its {expected} of that name: move it away, "
                "or choose another folder with output=FOLDER"
            )


def _what_is_at(path: Path) -> str:
    """A file, a folder, or something else, in words; empty where nothing is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else ""
    except OSError as error:
        return f"not to be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "no plain file"
