"""The folder of a run: who may use it, and what lies where in it. Knows nothing of the contents."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import warnings
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from mpiadv.errors import UserError
from mpiadv.whole_files import write_text

LOG_NAME = "log.h5"
CHECKPOINTS_NAME = "checkpoints"
_DONE_NAME = "DONE"
LOCK_NAME = "lock"
_TRACES_OF_A_RUN = (LOG_NAME, CHECKPOINTS_NAME, "model.pt", _DONE_NAME)
_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class RunFolder:
    """A run's folder, locked against other runs until `close`, or the end of the `with` block.

    `held_run` tells whether an earlier start of the run left anything in it.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.held_run = _holds_run(path)
        self._lock: int | None = lock

    @classmethod
    def open(cls, path: str | Path, *, resume: bool) -> Self:
        """Create the folder if need be, and lock it.

        With `resume` a folder that holds a run is gone on with, and an empty one begun.

        Raises:
            UserError: the folder cannot be made or written to, is in use by another run, or holds
                a run and `resume` is false. Nothing but the lock file has been touched then.
        """
        folder = Path(path)
        _make(folder)
        run_folder = cls(folder, _lock(folder))
        if run_folder.held_run and not resume:
            run_folder.close()
            raise UserError(
                f"{folder} holds another run: add --resume to go on with it, "
                "or choose another folder with output=FOLDER"
            )
        return run_folder

    @property
    def log(self) -> Path:
        """The HDF5 log."""
        return self.path / LOG_NAME

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS_NAME

    @property
    def model(self) -> Path:
        """The final model's state dict."""
        return self.path / "model.pt"

    @property
    def done(self) -> Path:
        """The marker of a finished run. Launchers should trust it, not the exit code."""
        return self.path / _DONE_NAME

    @property
    def is_done(self) -> bool:
        """Whether the run is finished."""
        return self.done.exists()

    def mark_done(self, text: str) -> None:
        """Mark the run as finished; `text` tells people how it ended."""
        write_text(self.done, text.rstrip("\n") + "\n")

    def require_held(self) -> None:
        """Make sure that the folder is still there, and still this run's.

        Raises:
            OSError: it was deleted, replaced, or cannot be read.
        """
        if (self.path / LOCK_NAME).read_text(encoding="utf-8", errors="replace") != _signature():
            raise FileNotFoundError(errno.ENOENT, "the run's folder was replaced", str(self.path))

    def close(self) -> None:
        """Let other runs use the folder."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with contextlib.suppress(OSError):  # a disk that is gone takes the signature with it
                os.truncate(lock, 0)
            # Closing alone would leave the lock with any child that was forked meanwhile.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    if (folder / _DONE_NAME).exists():
        return RunState.FINISHED
    try:
        signature = (folder / LOCK_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return RunState.UNKNOWN
    signed = re.match(r"process (\d+) on host (\S+)", signature)
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
        return True
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(
            f"output folder {folder} is a file: choose another folder with output=FOLDER"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot create output folder {folder}: {error.strerror}: "
            "choose another folder with output=FOLDER"
        ) from None


def _lock(folder: Path) -> int:
    """Take the lock and sign it; the open file that holds it."""
    path = folder / LOCK_NAME
    try:
        # Creating the file is the test: root passes every permission check, even on a read-only
        # file system.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"output folder {folder} is not writable: {error.strerror}: "
            "choose another folder with output=FOLDER"
        ) from None
    try:
        _take(descriptor, folder)
        os.truncate(descriptor, 0)
        os.write(descriptor, _signature().encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _signature() -> str:
    return f"process {os.getpid()} on host {socket.gethostname()}\n"


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise UserError(
            f"output folder {folder} is in use by another run ({holder or 'just starting'}): "
            "wait for it, stop it, or choose another folder with output=FOLDER"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise UserError(f"cannot lock output folder {folder}: {error.strerror}") from None
        warnings.warn(
            f"the file system of {folder} has no locks: make sure that no other run uses it",
            stacklevel=2,
        )


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TRACES_OF_A_RUN)
