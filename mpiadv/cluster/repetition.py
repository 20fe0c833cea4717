"""What `mpirun` says on standard error, less the boxes in which Open MPI only repeats ours."""

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

_RULER = rb"-{74}\n"
_REPEATED_BOXES = (
    (
        _RULER,
        rb"\w+ detected that one or more processes exited with non-zero status,\n",
        rb"thus causing the job to be terminated. The first process to do so was:\n",
        rb"\s*\n",
        rb"   Process name: .*\n",
        rb"   Exit code:    (?:2|75)\n",
        _RULER,
    ),
    (
        _RULER,
        rb"MPI_ABORT was invoked on rank .*\n",
        *(rb"  \w+: .*\n",) * 2,
        rb"\n",
        *(rb".*(?:MPI_ABORT|other processes|kills them).*\n",) * 3,
        _RULER,
    ),
    (
        _RULER,
        rb"\w+ has exited due to process rank .* calling\n",
        rb'"abort". This may have caused .*\n',
        rb"terminated by signals sent by .*\n",
        _RULER,
    ),
)
"""What Open MPI adds when a rank ends the program, having said why: each box line by line."""

_LOSS_BOXES = tuple(
    (_RULER, rb"\w+ noticed that process rank \d+ with PID .*\n", *(rb".+\n",) * more, _RULER)
    for more in (0, 1, 2)
)
"""What Open MPI says when a signal has ended a rank; its text is broken into lines anyhow."""
_LOSS = re.compile(rb"rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+ \([^)]*\))")


def without_repetition(
    pieces: Iterable[bytes], is_asked_to_end: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """The `pieces` of standard error, less the boxes in which Open MPI repeats the program.

    In place of the one that tells of a rank that was killed there is a line of ours; none for a
    rank that did not listen yet when the job was asked to end.
    """
    held: list[bytes] = []
    for piece in pieces:
        if held and not _boxes_beginning([*held, piece]):
            yield from held
            held = []
        boxes = _boxes_beginning([*held, piece])
        if not boxes:
            yield piece
            continue
        held.append(piece)
        if any(len(box) == len(held) for box in boxes):
            yield from _retold(held, is_asked_to_end=is_asked_to_end())
            held = []
    yield from held


def _boxes_beginning(pieces: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    return [
        box
        for box in (*_REPEATED_BOXES, *_LOSS_BOXES)
        if len(pieces) <= len(box) and all(map(re.fullmatch, box, pieces))
    ]


def _retold(box: Sequence[bytes], *, is_asked_to_end: bool) -> Iterator[bytes]:
    """What is left of a whole box: a line of ours where it tells of a loss, else nothing."""
    if not any(re.fullmatch(_LOSS_BOXES[0][1], line) for line in box):
        return
    loss = _LOSS.search(b" ".join(b"".join(box).split()))
    if loss is None:
        yield from box
    else:
        rank, host, number = (part.decode() for part in loss.groups())
        if is_asked_to_end and number.startswith(f"{signal.SIGUSR1:d} "):
            return
        yield (
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
