"""Standard output and error that never end the work: what nobody can take is lost, and told.

The one place for it: all that is printed, by consoles and bars too, goes through these streams.
"""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = (0, 1, 2)


class _Outlet(io.RawIOBase):
    """A descriptor to which writing always succeeds. `error` is the last that it did not take."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        """Write some of `data`; the number of bytes that are taken or lost."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                # Whoever shares the terminal may have told it not to wait: it is only full.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
                return memoryview(data).nbytes


def outlive_readers() -> None:
    """Have `sys.stdout` and `sys.stderr` outlive their readers, terminals and disks.

    A closed descriptor is opened on nothing first: a log would get its number, and be printed into.
    Streams that somebody has put in their place are left as they are.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) in _STANDARD:
        pass
    os.close(descriptor)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, 2)


def lost(stream: TextIO) -> OSError | None:
    """Why `stream` has lost what was printed; None where it has lost nothing."""
    with suppress(ValueError):  # closed
        stream.flush()
    outlet = getattr(getattr(stream, "buffer", None), "raw", None)
    return outlet.error if isinstance(outlet, _Outlet) else None


def is_unread(stream: TextIO) -> bool:
    """Whether the reader of `stream` has left, as `head` does once it has its lines."""
    error = lost(stream)
    return error is not None and error.errno == errno.EPIPE


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """In place of `stream`, which is None where the descriptor was closed."""
    outlet = _Outlet(descriptor)
    with suppress(ValueError, OSError, AttributeError):
        stream.flush()  # type: ignore[union-attr]
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=stream.encoding if stream else "utf-8",
        # Any path can be named, also in the encoding of LANG=C.
        errors="backslashreplace",
        line_buffering=descriptor == 2 or outlet.isatty(),
    )
