"""What trainers have, added in one order for any number of them. Knows no MPI.

Reduce-scatter and allgather by recursive halving: neighbours add each other's halves first, then
pairs of neighbours, and so on, so that every element is added by the tree of `PairwiseSum`, and
twice the buffer's bytes pass each trainer at most, however many there are. Rabenseifner 2004,
"Optimization of Collective Reduction Operations"; but for the order, which MPI leaves open.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mpiadv.comm.channel import Channel, Tag
from mpiadv.comm.links import Allocate
from mpiadv.comm.messages import ALIGNMENT, Bytes, Call, Word

PIECE_BYTES = 2**22
"""Pieces of a buffer go on by themselves: while one is added the next is under way."""

Add = Callable[[int, Bytes], None]
"""`add(start, theirs)` adds what came to this rank's bytes from `start` on."""

IsReady = Callable[[int], bool]
"""Whether this rank's summand is there up to so many bytes, as it may come from a device."""


def at_once(end: int) -> bool:
    """The `IsReady` of what is there from the start."""
    return True


class Sums(Protocol):
    """Sums over the trainers of all teams; each begins one after the other, as all others do."""

    @property
    def rank(self) -> int:
        """The number of this trainer's team."""

    @property
    def size(self) -> int:
        """How many trainers there are."""

    def begin(self, buffer: Bytes, add: Add, is_ready: IsReady = at_once) -> None:
        """Begin the next sum, in the place of this rank's summand: whole blocks of 64 bytes."""

    def poll(self) -> bool:
        """Move messages on; whether the sum that was begun is there."""

    def take_lost(self) -> set[int]:
        """The trainers that were lost since this was last asked."""

    def keep_alive(self) -> None:
        """Tell the others to go on waiting."""

    def since_sign_of_life(self, rank: int) -> float:
        """Seconds since a message to or from a trainer was complete."""

    def free(self) -> None:
        """Let go of what it holds, when nothing is under way."""


@dataclass(kw_only=True)
class _Round:
    """One exchange with another trainer: what is sent, where theirs goes."""

    tag: Tag
    peer: int
    sent: Bytes
    received: Bytes


@dataclass(kw_only=True)
class _Piece:
    """A piece of the buffer: the rounds that it has begun, and what of the last is under way."""

    end: int
    rounds: Iterator[_Round]
    num_begun: int = 0
    num_underway: int = 0
    is_done: bool = False


class ChannelSums:
    """See `Sums`: over a channel whose ranks are the trainers, `size` of them, a power of two."""

    def __init__(self, channel: Channel, size: int, allocate: Allocate) -> None:
        self.rank, self.size = channel.rank, size
        self._channel = channel
        self._allocate = allocate
        self._scratch: Bytes = allocate(0)
        self._pieces: list[_Piece] = []
        self._is_ready: IsReady = at_once
        self._lost: set[int] = set()
        self._unheard: set[int] = set()
        """Who has not taken the last word that this rank is alive."""
        for rank in self._others:
            self._listen(rank)

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def begin(self, buffer: Bytes, add: Add, is_ready: IsReady = at_once) -> None:
        if self._scratch.size < buffer.size:
            self._scratch = self._allocate(buffer.size)
        self._is_ready = is_ready
        ends = (min(s + PIECE_BYTES, buffer.size) for s in range(0, buffer.size, PIECE_BYTES))
        self._pieces = [
            _Piece(end=end, rounds=self._rounds(buffer, number * PIECE_BYTES, end, add))
            for number, end in enumerate(ends)
        ]
        self._go_on()

    def poll(self) -> bool:
        self._lost |= self._channel.poll()
        self._go_on()
        return all(piece.is_done for piece in self._pieces)

    def take_lost(self) -> set[int]:
        lost, self._lost = self._lost, set()
        return lost

    def keep_alive(self) -> None:
        for rank in set(self._others) - self._unheard:
            self._unheard.add(rank)
            taken = partial(self._unheard.discard, rank)
            self._channel.say(rank, Call(word=Word.ALIVE), Tag.CALL, taken)

    def since_sign_of_life(self, rank: int) -> float:
        return self._channel.since_sign_of_life(rank)

    def free(self) -> None:
        self._channel.free()

    def _listen(self, rank: int) -> None:
        """Also for a trainer that dies: MPI tells of one that something is expected of."""
        self._channel.expect(rank, Call, Tag.CALL, lambda call: self._listen(rank))

    def _go_on(self) -> None:
        """Begin each round that may begin: all trainers begin those of one peer in one order."""
        before: _Piece | None = None
        for piece in self._pieces:
            if piece.num_begun == 0 and not self._is_ready(piece.end):
                return
            while not (piece.num_underway or piece.is_done) and (
                before is None or before.is_done or before.num_begun > piece.num_begun
            ):
                self._begin_round(piece)
            before = piece

    def _begin_round(self, piece: _Piece) -> None:
        following = next(piece.rounds, None)
        if following is None:
            piece.is_done = True
            return
        piece.num_begun += 1
        piece.num_underway = 2

        def complete() -> None:
            piece.num_underway -= 1

        self._channel.receive(following.peer, following.received, following.tag, complete)
        self._channel.send(following.peer, following.sent, following.tag, complete)

    def _rounds(self, buffer: Bytes, start: int, end: int, add: Add) -> Iterator[_Round]:
        """Of the bytes from `start` to `end`; a round is over when the next one is asked for."""
        parts: list[tuple[slice, slice]] = []
        distances = [2**level for level in range(self.size.bit_length() - 1)]
        for distance in distances:
            middle = start + (end - start) // ALIGNMENT // 2 * ALIGNMENT
            mine, theirs = slice(start, middle), slice(middle, end)
            if self.rank & distance:
                mine, theirs = theirs, mine
            received = self._scratch[mine]
            yield _Round(
                tag=Tag.PART,
                peer=self.rank ^ distance,
                sent=buffer[theirs],
                received=received,
            )
            add(mine.start, received)
            parts.append((mine, theirs))
            start, end = mine.start, mine.stop
        for distance, (mine, theirs) in zip(reversed(distances), reversed(parts), strict=True):
            yield _Round(
                tag=Tag.TOTAL,
                peer=self.rank ^ distance,
                sent=buffer[mine],
                received=buffer[theirs],
            )
