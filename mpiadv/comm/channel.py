"""Messages between this rank and others, whatever carries them. Knows no MPI."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum

import numpy as np

from mpiadv.comm.messages import Bytes, erased, is_sealed, read, sealed
from mpiadv.contract.columns import SaidT


class Tag(IntEnum):
    """What a message is, as MPI matches it."""

    CALL = 1
    BATCH = 2
    FAREWELL = 3
    VERSION = 4
    RELEASE = 5
    PART = 6
    """What a trainer adds to its own."""
    TOTAL = 7
    """What a trainer has of the sum of all."""
    FRAME = 11
    TEXT = 12


class Channel(ABC):
    """Nonblocking messages of one rank to and from others; those of one tag arrive in order.

    Buffers are whole blocks of 64 bytes, and stay as they are until their message is complete.
    """

    rank: int

    @abstractmethod
    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        """Send what is in a buffer; calls `taken` when the other rank has begun to receive it."""

    @abstractmethod
    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        """Receive into a buffer, or its beginning; calls `arrived` when the message is there."""

    @abstractmethod
    def poll(self) -> set[int]:
        """Make progress, call what is to be called; the ranks that turned out to be lost."""

    @abstractmethod
    def num_sends(self, rank: int) -> int:
        """How many messages to a rank are on their way."""

    @abstractmethod
    def num_receives(self, rank: int) -> int:
        """How many messages of a rank are expected."""

    @abstractmethod
    def silent_seconds(self, rank: int) -> float:
        """For how long a rank has not taken what it was sent; 0 where it has taken all."""

    @abstractmethod
    def since_sign_of_life(self, rank: int) -> float:
        """Seconds since a message to or from a rank was complete."""

    @abstractmethod
    def free(self) -> None:
        """Let go of what it holds, when nothing is on its way that anybody waits for."""

    def pending(self, rank: int) -> int:
        """How many messages are on their way, to or from a rank."""
        return self.num_sends(rank) + self.num_receives(rank)

    def say(
        self, rank: int, said: object, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        """Send a message that is nothing but a header."""
        self.send(rank, sealed(said).view(np.uint8), tag, taken)

    def expect(
        self, rank: int, said: type[SaidT], tag: Tag, heard: Callable[[SaidT | None], None]
    ) -> None:
        """Receive one that says an object of `said`; `heard` gets None if it came not whole."""
        header = erased(said)

        def arrived() -> None:
            heard(read(header, said) if is_sealed(header) else None)

        self.receive(rank, header.view(np.uint8), tag, arrived)


class NoChannel(Channel):
    """That of a rank that is alone."""

    rank = 0

    def send(
        self, rank: int, buffer: Bytes, tag: Tag, taken: Callable[[], None] = lambda: None
    ) -> None:
        raise AssertionError(f"a message to rank {rank}, which there is not")

    def receive(self, rank: int, buffer: Bytes, tag: Tag, arrived: Callable[[], None]) -> None:
        raise AssertionError(f"a message of rank {rank}, which there is not")

    def poll(self) -> set[int]:
        return set()

    def num_sends(self, rank: int) -> int:
        return 0

    num_receives = num_sends

    def silent_seconds(self, rank: int) -> float:
        return 0.0

    since_sign_of_life = silent_seconds

    def free(self) -> None:
        """It holds nothing."""
