"""What `mpirun` says on standard error, less the boxes in which Open MPI only repeats ours."""

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import IO

_RULER = b"-" * 74 + b"\n"
_BEGINNING = re.compile(
    rb"MPI_ABORT was invoked|\w+ (?:detected that one|noticed that process|has exited due to)"
)
"""What comes below the upper ruler of a box that is ours to judge."""

_MOST_LINES = 8
"""Of such a box, above its lower ruler."""

_REPEATED = re.compile(
    rb"exited with non-zero status, .* Exit code: (?:2|75) -"
    rb"|MPI_ABORT was invoked on rank"
    rb'|has exited due to process rank .* calling "abort"'
)
"""What Open MPI adds when a rank ends the program, having said why."""

_LOSS = re.compile(rb"rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+ \([^)]*\))")
"""What it says when a signal has ended a rank."""


def without_repetition(
    pieces: Iterable[bytes], is_asked_to_end: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """The `pieces` of standard error, less the boxes in which Open MPI repeats the program.

    In place of the one that tells of a rank that was killed there is a line of ours; none for a
    rank that did not listen yet when the job was asked to end.
    """
    held: list[bytes] = []
    for piece in pieces:
        if len(held) > 1 and piece == _RULER:
            yield _retold(b"".join([*held, piece]), is_asked_to_end=is_asked_to_end())
            held = []
            continue
        is_box = len(held) < _MOST_LINES and (len(held) != 1 or _BEGINNING.match(piece))
        if not is_box:
            yield from held
            held = []
        if held or piece == _RULER:
            held.append(piece)
        else:
            yield piece
    yield from held


def _retold(box: bytes, *, is_asked_to_end: bool) -> bytes:
    """What is left of a whole box: a line of ours where it tells of a loss, else nothing or all."""
    words = b" ".join(box.split())  # it is broken into lines anyhow
    if _REPEATED.search(words):
        return b""
    loss = _LOSS.search(words)
    if loss is None:
        return box
    rank, host, number = (part.decode() for part in loss.groups())
    if is_asked_to_end and number.startswith(f"{signal.SIGUSR1:d} "):
        return b""
    return (
        f"mpiadv: error: rank {rank} on {host} was ended by signal {number}, and the job with "
        "it: go on with --resume; --fault-tolerant does without a lost attacker\n"
    ).encode()


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """The text of `stream` as it comes: whole lines, and unfinished ones such as progress bars."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        # Open MPI ends its last box with a zero byte, which is nothing to read.
        *lines, rest = (rest + chunk.replace(b"\0", b"")).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if rest and not rest.startswith(b"-"):
            yield rest
            rest = b""
    if rest:
        yield rest
