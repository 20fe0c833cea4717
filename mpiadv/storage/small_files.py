"""Files that are read whole, and are small unless something is wrong. Knows no file format."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 2**20


def read_small(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a file; at once, also where it is a pipe that nobody writes, or endless.

    Raises:
        OSError: it cannot be read, is no plain file, or is larger than `most_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return content
