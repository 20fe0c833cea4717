"""The ranks of the job, and what they say to each other at its start and end, over MPI.

Everything goes through the trainer: no rank but that one is needed by the others, so one that is
lost is done without where Open MPI's fault tolerance tells of it.
"""

import json
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from mpiadv.comm.exchange import Exchange
from mpiadv.comm.library import FAULT_TOLERANT, MPI, library_name
from mpiadv.comm.links import Allocate, LinkShape, Pin, most_parameter_slots, no_device
from mpiadv.comm.messages import Bytes
from mpiadv.comm.mpi_attacker import MpiAttackerLink
from mpiadv.comm.mpi_trainer import MpiTrainerLink
from mpiadv.comm.roster import Roster
from mpiadv.comm.shared_memory import DISABLE_SHARING, SharedMemory, SharedSlots, attach
from mpiadv.comm.watchdog import Watchdog
from mpiadv.comm.wire import TRAINER
from mpiadv.process.errors import DeadlineError
from mpiadv.process.launched import require_known_to_mpi

DEFAULT_DEADLINE_SECONDS = 600.0
LONGEST_MESSAGE = 2**30
"""Bytes; MPI counts them in 31 bits."""


class World:
    """All ranks of a job, or of `comm`. Rank 0 trains.

    Every wait for a rank has a deadline, but what a rank does `at_work` may take any time.

    Raises:
        UserError: a launcher of another MPI started several of us, each of them alone.

    All methods that speak to other ranks raise:
        DeadlineError: a rank has not answered in time, and the job cannot do without it.
        DismissedError: rank 0 has given this rank up.
        TrainerLostError: rank 0 is gone.
    """

    def __init__(self, comm: MPI.Comm | None = None) -> None:
        self._comm = MPI.COMM_WORLD if comm is None else comm
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        if comm is None:
            require_known_to_mpi(os.environ, self.library(), self.size)
        self.watchdog = Watchdog(f"rank {self.rank} on {self.host}", DEFAULT_DEADLINE_SECONDS)
        self.roster = Roster(size=self.size)
        self._exchange = Exchange(self._comm, self.roster, self.watchdog, DEFAULT_DEADLINE_SECONDS)
        self.local_rank, self.local_size = 0, 1

    def meet(self) -> None:
        """Tell each other the hosts; ranks that share one are numbered by `local_rank`."""
        self.roster.hosts = self.gather(self.host)
        same_host = [r for r, host in enumerate(self.roster.hosts) if host == self.host]
        self.local_rank, self.local_size = same_host.index(self.rank), len(same_host)

    @property
    def deadline_seconds(self) -> float:
        """Longest silence of another rank."""
        return self._exchange.deadline_seconds

    @deadline_seconds.setter
    def deadline_seconds(self, seconds: float) -> None:
        self._exchange.deadline_seconds = seconds

    def at_work(self) -> AbstractContextManager[None]:
        """Around what may take long, right before the ranks meet again: others know it alive.

        No other method that speaks to ranks may be called within it.
        """
        return self._exchange.at_work()

    @property
    def is_trainer(self) -> bool:
        return self.rank == TRAINER

    @property
    def host(self) -> str:
        return platform.node()

    @property
    def hosts(self) -> list[str]:
        """The hosts of all ranks; "" for one that was lost before it told."""
        return self.roster.hosts

    @staticmethod
    def library() -> str:
        """Name and version of the MPI library."""
        return library_name()

    def share(self, text: str) -> str:
        """The text of rank 0, on every rank."""
        return self.gather(text if self.is_trainer else "")[0]

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks in rank order, on every rank; "" for one that is lost."""
        if not self.is_trainer:
            return list(json.loads(self._exchange.ask(_bytes_of(text))))
        texts = [text, *((part or b"").decode() for part in self._exchange.hear())]
        self._exchange.answer(_bytes_of(json.dumps(texts)))
        return texts

    def collect(self, values: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64] | None]:
        """The values of all ranks in rank order, on rank 0; None for one that is lost or gave none.

        The other ranks get an empty list.
        """
        parts = self.gather_bytes(np.frombuffer(values.tobytes(), np.uint8))
        there = [None if part is None or not part.size else part for part in parts]
        return [None if p is None else p.view(np.float64).reshape(values.shape) for p in there]

    def gather_bytes(self, data: Bytes) -> list[Bytes | None]:
        """The bytes of all ranks in rank order, on rank 0; None for one that is lost.

        The other ranks get an empty list. Each rank may give another number of bytes, none of them
        more than `LONGEST_MESSAGE`.
        """
        if not self.is_trainer:
            self._exchange.ask(data)
            return []
        parts = self._exchange.hear()
        self._exchange.answer(_bytes_of(""))
        return [data, *(None if part is None else np.frombuffer(part, np.uint8) for part in parts)]

    def spread(self, values: Bytes) -> None:
        """Fill `values` with those of rank 0, which sends them to each rank by itself."""
        for start in range(0, values.size, LONGEST_MESSAGE):
            piece = values[start : start + LONGEST_MESSAGE]
            if self.is_trainer:
                self._exchange.hear()
                self._exchange.answer(piece)
            else:
                piece[:] = np.frombuffer(self._exchange.ask(_bytes_of("")), np.uint8)

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The element-wise sum over all ranks, on every rank.

        Raises:
            DeadlineError: a rank was lost, and its values with it.
        """
        total = np.zeros(values.shape)
        if not total.size:  # of all ranks, as they sum arrays of one shape
            return total
        for rank, part in enumerate(self.collect(values)):
            total += self._required(rank, part)
        self.spread(total.reshape(-1).view(np.uint8))
        return total

    def trainer_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> MpiTrainerLink:
        """Rank 0's end; it meets the other ranks, which ask for theirs then."""
        memory = self._memory_for(shape)
        with memory or nullcontext():
            self.share(memory.address if memory else "")
            readers = [rank for rank, answer in enumerate(self.gather("")) if answer]
        shared = None
        if memory and readers:
            shared = SharedSlots(memory.content, shape.parameter_bytes, pin)
        return MpiTrainerLink(
            self._comm, self.roster, self.watchdog, shape, allocate, shared, readers
        )

    def attacker_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> MpiAttackerLink:
        """An attacker's end; it meets rank 0, which asks for its own then."""
        address = self.share("")
        memory = attach(address) if address else None
        self.gather("reads along" if memory is not None else "")
        shared = None if memory is None else SharedSlots(memory, shape.parameter_bytes, pin)
        return MpiAttackerLink(self._comm, self.watchdog, shape, allocate, shared)

    def _memory_for(self, shape: LinkShape) -> SharedMemory | None:
        """Memory for versions that the ranks of this host can share; None where there is none."""
        hosts = self.hosts or [self.host] * self.size  # not told: all may be here
        num_readers = hosts[1:].count(self.host)
        if num_readers == 0 or os.environ.get(DISABLE_SHARING) == "1":
            return None
        num_slots = most_parameter_slots(shape, self.size - 1, num_readers)
        try:
            return SharedMemory(SharedSlots.room_for(num_slots, shape.parameter_bytes))
        except OSError:
            return None

    def abort(self, exit_code: int) -> None:
        """End every rank of the job at once; a rank that is alone ends by itself."""
        if self.size > 1:
            self._comm.Abort(exit_code)

    def leave(self, exit_code: int) -> None:
        """End this rank where MPI's own end would wait for ranks that are lost, else return."""
        if not FAULT_TOLERANT or self.size == 1:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        if self.roster.dismissed:
            # A stopped rank would keep the job for ever.
            self._comm.Abort(exit_code)
        os._exit(exit_code)

    def _required(self, rank: int, part: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        if part is None:
            raise DeadlineError(f"{self.roster.name(rank)} was lost, and its share with it")
        return part


def _bytes_of(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)
