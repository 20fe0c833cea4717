"""What ranks tell rank 0 in turn, and its answer to all: at the start and at the end of a job.

A part is a frame, which says how long the text is and has its checksum, and the text. A rank that
is at work on its part sends frames that say it is alive, and whoever waits begins to count anew:
shares of work take as long as they take, and a rank that is stopped is noticed all the same.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from mpiadv.comm.channel import Tag
from mpiadv.comm.library import FAULT_TOLERANT, MPI
from mpiadv.comm.messages import (
    Bytes,
    Frame,
    Header,
    Sign,
    checksum,
    erased,
    is_sealed,
    read,
    sealed,
)
from mpiadv.comm.requests import Requests
from mpiadv.comm.roster import Absence, Roster
from mpiadv.comm.waiting import Wait
from mpiadv.comm.watchdog import Watchdog
from mpiadv.contract.turns import TRAINER
from mpiadv.process.errors import DeadlineError, DismissedError, TrainerLostError

BEATS_PER_DEADLINE = 20
"""How often a rank says within a deadline that it is alive, unless the last word is not taken."""


@dataclass(kw_only=True)
class _Part:
    """What is expected of a rank: its frame, then its text."""

    rank: int
    wait: Wait
    text: bytes | None = None


class Exchange:
    """Rank 0 hears all parts and answers them; the others tell theirs and are answered.

    `at_work` is for what comes before a part is told: between it and that, nothing is said. All
    methods raise what those of `World` do.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        roster: Roster,
        watchdog: Watchdog,
        deadline_seconds: Callable[[], float],
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._comm = comm
        self._rank, self._size = int(comm.rank), int(comm.size)
        self._roster = roster
        self._requests = Requests(comm, watchdog)
        self._lost_meanwhile: set[int] = set()
        self._failed: Exception | None = None
        """What went wrong beside the work."""
        self._not_heard: set[int] = set()
        """Who has not taken the last word that this rank is alive."""

    def ask(self, part: Bytes) -> bytes:
        """Tell rank 0 this rank's part; returns its answer."""
        self._send(TRAINER, part)
        (answer,) = self._receive([TRAINER])
        self._settle()
        assert answer is not None
        return answer

    def hear(self) -> list[bytes | None]:
        """The parts of all ranks but 0, in rank order; None for one that is lost."""
        return self._receive(range(1, self._size))

    def answer(self, answer: Bytes) -> None:
        for rank in self._roster.attackers:
            self._send(rank, answer)
        self._settle()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within it this rank works on its next part, and tells those that may wait so.

        From a thread of its own, as the work is anybody's code; nobody else calls MPI meanwhile.
        """
        if self._size == 1 or MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            yield
            return
        is_over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(is_over,), name="alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
        if self._failed is not None:
            raise self._failed

    def _beat(self, is_over: threading.Event) -> None:
        try:
            while not is_over.wait(self._deadline_seconds() / BEATS_PER_DEADLINE):
                self._say_alive()
                self._lost_meanwhile |= self._requests.poll()
        except Exception as error:
            self._failed = error

    def _say_alive(self) -> None:
        peers = self._roster.attackers if self._rank == TRAINER else [TRAINER]
        for rank in set(peers) - self._not_heard:
            self._not_heard.add(rank)
            taken = partial(self._not_heard.discard, rank)
            self._start_send(rank, sealed(Frame(sign=Sign.ALIVE)), Tag.FRAME, taken)

    def _send(self, rank: int, text: Bytes) -> None:
        frame = Frame(sign=Sign.TEXT, size=text.size, checksum=checksum(text))
        self._start_send(rank, sealed(frame), Tag.FRAME)
        if text.size:
            self._start_send(rank, text, Tag.TEXT)

    def _start_send(
        self,
        rank: int,
        message: npt.NDArray[Any],
        tag: Tag,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._requests.start(
            rank,
            # What was merely sent would be lost with a sender that leaves at once.
            lambda: self._comm.Issend([message, MPI.BYTE], rank, tag),
            taken,
            keeps=message,
        )

    def _receive(self, ranks: Iterable[int]) -> list[bytes | None]:
        parts = {rank: _Part(rank=rank, wait=self._new_wait()) for rank in ranks}
        for rank in parts.keys() - self._roster.absent.keys():
            self._await_frame(parts[rank])
        self._until(
            lambda rank: parts[rank].text is not None,
            {rank: part.wait for rank, part in parts.items()},
            # Those that wait for the answer hear why it takes so long.
            meanwhile=self._say_alive if self._rank == TRAINER else lambda: None,
        )
        return [part.text for part in parts.values()]

    def _await_frame(self, part: _Part) -> None:
        message = erased(Frame)
        self._requests.start(
            part.rank,
            lambda: self._comm.Irecv([message, MPI.BYTE], part.rank, Tag.FRAME),
            lambda: self._read_frame(part, message),
        )

    def _read_frame(self, part: _Part, message: Header) -> None:
        part.wait.over()
        if not is_sealed(message):
            self._disbelieve(part.rank)
            return
        frame = read(message, Frame)
        if frame.sign is Sign.ALIVE:
            self._await_frame(part)
        elif frame.sign is Sign.LEAVE:
            raise DismissedError("the trainer has given this rank up")
        elif frame.size:
            self._await_text(part, frame)
        else:
            part.text = b""

    def _await_text(self, part: _Part, frame: Frame) -> None:
        text = np.zeros(frame.size, np.uint8)

        def take_in() -> None:
            if checksum(text) == frame.checksum:
                part.text = text.tobytes()
            else:
                self._disbelieve(part.rank)

        self._requests.start(
            part.rank, lambda: self._comm.Irecv([text, MPI.BYTE], part.rank, Tag.TEXT), take_in
        )

    def _disbelieve(self, rank: int) -> None:
        """A receive from a rank that dies may pass for complete though little or nothing came."""
        if rank != TRAINER and not FAULT_TOLERANT:
            name = self._roster.name(rank)
            raise DeadlineError(f"what {name} said did not arrive whole: go on with --resume")
        self._lose(rank, Absence.DIED)

    def _settle(self) -> None:
        """Wait until everything is sent to those that are there."""
        peers = self._requests.peers - self._roster.absent.keys()
        waits = {rank: self._new_wait() for rank in peers}
        self._until(lambda rank: not self._requests.of(rank), waits)

    def _until(
        self,
        is_over: Callable[[int], bool],
        waits: Mapping[int, Wait],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until it is over with each of these ranks, or the rank is lost.

        Do something `meanwhile`, as often as a rank says that it is alive.
        """
        nap, beat_at = Wait(inf), time.perf_counter()
        while True:
            lost, self._lost_meanwhile = self._lost_meanwhile, set()
            for rank in lost | self._requests.poll():
                self._lose(rank, Absence.DIED)
            missing = [r for r in waits if r not in self._roster.absent and not is_over(r)]
            if not missing:
                return
            for rank in missing:
                self._count(rank, waits[rank])
            if time.perf_counter() >= beat_at:
                beat_at += self._deadline_seconds() / BEATS_PER_DEADLINE
                meanwhile()
            nap.pause(str)

    def _new_wait(self) -> Wait:
        return Wait(self._deadline_seconds(), sleep=lambda seconds: None)

    def _count(self, rank: int, wait: Wait) -> None:
        """Count the time that is waited for a rank, and do without it when it is too long."""
        try:
            wait.pause(lambda: self._roster.name(rank))
        except DeadlineError:
            if not (FAULT_TOLERANT and self._rank == TRAINER):
                raise
            self._lose(rank, Absence.DISMISSED)
            self._start_send(rank, sealed(Frame(sign=Sign.LEAVE)), Tag.FRAME)

    def _lose(self, rank: int, why: Absence) -> None:
        if rank == TRAINER:
            raise TrainerLostError(f"the trainer ({self._roster.name(TRAINER)}) is gone")
        if self._roster.lose(rank, why):
            told = "was lost" if why is Absence.DIED else "does not answer and is given up"
            print(f"mpiadv: {self._roster.name(rank)} {told}", file=sys.stderr, flush=True)
