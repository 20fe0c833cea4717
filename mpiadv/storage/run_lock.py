"""Keeps other runs out of a folder: a file in it, locked and signed. Knows nothing else of it."""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import warnings
from pathlib import Path

from mpiadv.process.errors import UserError
from mpiadv.storage.small_files import read_small

LOCK_NAME = "lock"

_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLock:
    """A folder's lock, taken until `release`.

    Raises:
        UserError: another run holds it, or it cannot be made. Nothing else has been touched then.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._mutex = threading.Lock()  # checkpoints are written by a thread
        # The number tells runs apart that one process makes, or several with its number.
        process = f"process {os.getpid()} on host {socket.gethostname()}"
        self._signature = f"{process}\nrun {os.urandom(8).hex()}\n".encode()
        self._descriptor: int | None = _lock(folder, self._signature)
        self._folder = _identity(os.stat(folder))
        self._news = ""

    def require_held(self) -> None:
        """Make sure that the folder is still there, and still this run's.

        A lock that somebody removed, or wrote over, is made again, unless another run was there.

        Raises:
            OSError: the folder was deleted, replaced, or taken by another run, or cannot be read.
        """
        with self._mutex:
            if self._descriptor is None or self._is_signed():
                return
            if _identity(os.stat(self._path.parent)) != self._folder:
                raise FileNotFoundError(
                    errno.ENOENT, "the run's folder was replaced", str(self._path.parent)
                )
            self._renew(self._descriptor)

    def take_news(self) -> str:
        """What happened to the lock since this was asked last; empty where nothing did."""
        with self._mutex:
            news, self._news = self._news, ""
            return news

    def release(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):  # a disk that is gone takes the signature with it
                os.truncate(descriptor, 0)
            # Closing alone would leave the lock with any child that was forked meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _is_signed(self) -> bool:
        try:
            return read_small(self._path) == self._signature
        except FileNotFoundError:
            return False

    def _renew(self, held: int) -> None:
        try:
            new = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            if _identity(os.stat(self._path)) != _identity(os.fstat(held)):
                raise OSError(
                    errno.EBUSY, "another run has taken the run's folder", str(self._path)
                ) from None
            _sign(held, self._signature)
            self._news = f"{self._path} was written over: it is signed again"
            return
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(new, self._signature)
        self._descriptor = new
        os.close(held)
        self._news = f"{self._path} was removed: it is made again, the run goes on"


def _lock(folder: Path, signature: bytes) -> int:
    """Take the lock and sign it; the open file that holds it."""
    try:
        # Creating the file is the test: root passes every permission check, even on a read-only
        # file system.
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, folder)
            _sign(descriptor, signature)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise UserError(
            f"output folder {folder} is not writable: {error.strerror}: "
            "choose another folder with output=FOLDER"
        ) from None
    return descriptor


def _sign(descriptor: int, signature: bytes) -> None:
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, signature, 0)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").partition("\n")[0]
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
