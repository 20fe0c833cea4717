"""The ranks of the job, and what all of them say to each other at its start and end, over MPI."""

import platform

import numpy as np
import numpy.typing as npt

from mpiadv.comm.library import MPI
from mpiadv.comm.links import Allocate, LinkShape
from mpiadv.comm.messages import Bytes
from mpiadv.comm.mpi import Comms, MpiAttackerLink, MpiTrainerLink
from mpiadv.comm.waiting import Wait

DEFAULT_DEADLINE_SECONDS = 600.0
LONGEST_MESSAGE = 2**30
"""Bytes; MPI counts them in 31 bits."""


class World:
    """All ranks of a job, or of `comm`. Rank 0 trains; every collective wait has a deadline."""

    def __init__(self, comm: MPI.Comm | None = None) -> None:
        self._comm = MPI.COMM_WORLD if comm is None else comm
        self.deadline_seconds = DEFAULT_DEADLINE_SECONDS
        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()

    @property
    def rank(self) -> int:
        return int(self._comm.rank)

    @property
    def size(self) -> int:
        return int(self._comm.size)

    @property
    def is_trainer(self) -> bool:
        return self.rank == 0

    @property
    def host(self) -> str:
        return platform.node()

    @staticmethod
    def library() -> str:
        """Name and version of the MPI library."""
        return str(MPI.Get_library_version()).split(",")[0].strip()

    def share(self, text: str) -> str:
        """The text of rank 0, on every rank."""
        return self.gather(text if self.is_trainer else "")[0]

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks in rank order, on every rank."""
        mine = np.frombuffer(text.encode(), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        size = np.array([mine.size], np.int64)
        self._complete(self._comm.Iallgather(size, sizes), "every rank's word")
        everything = np.zeros(int(sizes.sum()), np.uint8)
        counts = [int(count) for count in sizes]
        self._complete(
            self._comm.Iallgatherv([mine, MPI.BYTE], [everything, counts, MPI.BYTE]),
            "every rank's word",
        )
        ends = np.cumsum(sizes)
        return [
            everything[end - n : end].tobytes().decode() for n, end in zip(sizes, ends, strict=True)
        ]

    def spread(self, values: Bytes) -> None:
        """Fill `values` with those of rank 0, which sends them to each rank by itself."""
        for start in range(0, values.size, LONGEST_MESSAGE):
            piece = [values[start : start + LONGEST_MESSAGE], MPI.BYTE]
            if self.is_trainer:
                requests = [self._comm.Isend(piece, rank) for rank in range(1, self.size)]
            else:
                requests = [self._comm.Irecv(piece, 0)]
            for request in requests:
                self._complete(request, "the trained parameters to reach every rank")

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The element-wise sum over all ranks, on every rank."""
        total = np.zeros_like(values)
        self._complete(self._comm.Iallreduce(values, total, MPI.SUM), "every rank's figures")
        return total

    def trainer_link(
        self, shape: LinkShape, hosts: list[str], allocate: Allocate
    ) -> MpiTrainerLink:
        """Rank 0's end; all ranks make theirs together."""
        return MpiTrainerLink(self._own_comms(), shape, hosts, allocate)

    def attacker_link(self, shape: LinkShape, allocate: Allocate) -> MpiAttackerLink:
        """An attacker's end; all ranks make theirs together."""
        return MpiAttackerLink(self._own_comms(), shape, allocate)

    def abort(self, exit_code: int) -> None:
        """End every rank of the job at once; a rank that is alone ends by itself."""
        if self.size > 1:
            self._comm.Abort(exit_code)

    def _own_comms(self) -> Comms:
        return self._duplicate(), self._duplicate()

    def _duplicate(self) -> MPI.Comm:
        comm, request = self._comm.Idup()
        self._complete(request, "every rank to open its link")
        return comm

    def _complete(self, request: MPI.Request, what: str) -> None:
        wait = Wait(self.deadline_seconds)
        while not request.Test():
            wait.pause(lambda: what)
