"""The ranks of a job over MPI, and what they say to each other at its start and end.

Everything goes through the trainer: no rank but that one is needed by the others, so one that is
lost is done without where Open MPI's fault tolerance tells of it.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.exchange import Exchange
from mpiadv.comm.homes import Home
from mpiadv.comm.library import FAULT_TOLERANT, MPI, library_name
from mpiadv.comm.links import Allocate, LinkShape, Pin, no_device
from mpiadv.comm.messages import Bytes
from mpiadv.comm.mpi_broadcasts import MpiBroadcasts
from mpiadv.comm.mpi_channel import MpiChannel
from mpiadv.comm.requests import require_loss
from mpiadv.comm.settling import find_home
from mpiadv.comm.sums import ChannelSums, Sums
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.comm.world import LONGEST_MESSAGE, Division, World
from mpiadv.process.errors import DeadlineError
from mpiadv.process.launched import require_known_to_mpi


class MpiWorld(World):
    """All ranks of a job, or of `comm`, whose ranks people know by `numbers`.

    Raises:
        UserError: a launcher of another MPI started several of us, each of them alone.
    """

    def __init__(
        self, comm: MPI.Intracomm | None = None, numbers: Sequence[int] | None = None
    ) -> None:
        self._comm: MPI.Intracomm = MPI.COMM_WORLD if comm is None else comm
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        if comm is None:
            require_known_to_mpi(os.environ, self.library(), self.size)
        super().__init__()
        if numbers is not None:
            self.roster.numbers = numbers
        self._exchange = Exchange(
            self._comm, self.roster, self.watchdog, lambda: self.deadline_seconds
        )

    def at_work(self) -> AbstractContextManager[None]:
        return self._exchange.at_work()

    def library(self) -> str:
        return library_name()

    def gather(self, text: str) -> list[str]:
        if not self.is_trainer:
            return list(json.loads(self._exchange.ask(_bytes_of(text))))
        texts = [text, *((part or b"").decode() for part in self._exchange.hear())]
        self._exchange.answer(_bytes_of(json.dumps(texts)))
        return texts

    def gather_bytes(self, data: Bytes) -> list[Bytes | None]:
        if not self.is_trainer:
            self._exchange.ask(data)
            return []
        parts = self._exchange.hear()
        self._exchange.answer(_bytes_of(""))
        return [data, *(None if part is None else np.frombuffer(part, np.uint8) for part in parts)]

    def spread(self, values: Bytes) -> None:
        for start in range(0, values.size, LONGEST_MESSAGE):
            piece = values[start : start + LONGEST_MESSAGE]
            if self.is_trainer:
                self._exchange.hear()
                self._exchange.answer(piece)
            else:
                piece[:] = np.frombuffer(self._exchange.ask(_bytes_of("")), np.uint8)

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        total = np.zeros(values.shape)
        if not total.size:  # of all ranks, as they sum arrays of one shape
            return total
        for rank, part in enumerate(self.collect(values)):
            if part is None:
                raise DeadlineError(f"{self.roster.name(rank)} was lost, and its share with it")
            total += part
        self.spread(total.reshape(-1).view(np.uint8))
        return total

    def trainer_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> TrainerLink:
        return TrainerLink(
            MpiChannel(self._comm, self.watchdog),
            self.roster,
            shape,
            allocate,
            self._home(shape),
            pin,
            survives_losses=FAULT_TOLERANT,
            deadline_seconds=lambda: self.watchdog.deadline_seconds,
        )

    def attacker_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> AttackerLink:
        channel = MpiChannel(self._comm, self.watchdog)
        return AttackerLink(channel, shape, allocate, self._home(shape), pin)

    def _home(self, shape: LinkShape) -> Home:
        """Where this rank reads versions, and how they come to its host."""
        home = find_home(self, shape)
        leaders = [group[0] for group in home.groups]
        if len(leaders) == 1:
            return home
        comm = None
        # With a member that is dead no communicator comes about, and others wait for it.
        if self.rank in leaders and sum(map(len, home.groups)) == self.size:
            comm = self._comm_of(leaders)
        have_it = self.gather("1" if comm or self.rank not in leaders else "0")
        if comm is None or have_it.count("1") < self.size:
            return home
        return dataclasses.replace(home, broadcasts=MpiBroadcasts(comm, self.watchdog))

    def _comm_of(self, ranks: list[int]) -> MPI.Intracomm | None:
        """A communicator of these ranks, which all ask for it; None where one of them is lost."""
        everybody = self._comm.Get_group()
        group = everybody.Incl(ranks)
        try:
            with self.watchdog.watching():
                return self._comm.Create_group(group)
        except MPI.Exception as error:
            require_loss(error.Get_error_code())
            return None
        finally:
            group.Free()
            everybody.Free()

    def require_all_there(self) -> None:
        if self.roster.absent:
            names = ", ".join(map(self.roster.name, self.roster.absent))
            raise DeadlineError(f"{names} was lost before teams were made: start again")

    def divide(self, teams: Sequence[Sequence[int]]) -> Division:
        if len(teams) == 1:
            return Division(team=self)
        self.require_all_there()
        number = next(n for n, team in enumerate(teams) if self.rank in team)
        team = self._part(teams[number])
        assert team is not None
        trainer_ranks = [ranks[0] for ranks in teams]
        return Division(
            team=team,
            number=number,
            num_teams=len(teams),
            among_trainers=self._part(trainer_ranks),
            trainer_ranks=trainer_ranks,
        )

    def _part(self, ranks: Sequence[int]) -> "MpiWorld | None":
        """A world of `ranks` in their order; None for those that are none of them. All ask."""
        is_in = self.rank in ranks
        color, key = (ranks[0], ranks.index(self.rank)) if is_in else (MPI.UNDEFINED, 0)
        try:
            with self.watchdog.watching():
                comm = MPI.Intracomm(self._comm.Split(color, key))
        except MPI.Exception as error:
            require_loss(error.Get_error_code())
            raise DeadlineError("a rank was lost while teams were made: start again") from None
        if not is_in:
            return None
        part = MpiWorld(comm, ranks)
        part.deadline_seconds = self.deadline_seconds
        part.watchdog.deadline_seconds = self.watchdog.deadline_seconds
        part.roster.hosts = [self.roster.hosts[rank] for rank in ranks]
        part.watchdog.name = part.roster.name(part.rank)
        return part

    def sums(self, allocate: Allocate) -> Sums:
        return ChannelSums(MpiChannel(self._comm, self.watchdog), self.size, allocate)

    def abort(self, exit_code: int) -> None:
        if self.size > 1:
            self._comm.Abort(exit_code)

    def leave(self, exit_code: int) -> None:
        if not FAULT_TOLERANT or self.size == 1:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        if self.roster.dismissed:
            # A stopped rank would keep the job for ever.
            self._comm.Abort(exit_code)
        os._exit(exit_code)


def _bytes_of(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)
