"""The ranks of a job, as everything above sees them. Knows no MPI: here a rank is alone."""

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.channel import NoChannel
from mpiadv.comm.homes import Home
from mpiadv.comm.links import Allocate, LinkShape, Pin, no_device
from mpiadv.comm.messages import Bytes
from mpiadv.comm.roster import Roster
from mpiadv.comm.sums import Sums
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.comm.watchdog import Watchdog
from mpiadv.contract.turns import TRAINER

DEFAULT_DEADLINE_SECONDS = 600.0
LONGEST_MESSAGE = 2**30
"""Bytes; MPI counts them in 31 bits."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """What a rank is in once the job is divided.

    `team`: its own, whose rank 0 trains; the whole job where there is but one. `among_trainers`:
    the trainers of all teams, by team, where it is one of several.
    """

    team: "World"
    number: int = 0
    num_teams: int = 1
    among_trainers: "World | None" = None
    trainer_ranks: Sequence[int] = (TRAINER,)


class World:
    """A job of one rank, which says nothing to nobody. `MpiWorld` is one of several.

    Every wait for a rank has a deadline, but what a rank does `at_work` may take any time.

    All methods that speak to other ranks raise:
        DeadlineError: a rank has not answered in time, and the job cannot do without it.
        DismissedError: rank 0 has given this rank up.
        TrainerLostError: rank 0 is gone.
    """

    rank, size = TRAINER, 1
    local_rank, local_size = 0, 1
    """Its number among the ranks of its host, and how many these are."""
    deadline_seconds = DEFAULT_DEADLINE_SECONDS
    """Longest silence of another rank."""

    def __init__(self) -> None:
        self.watchdog = Watchdog(f"rank {self.rank} on {self.host}", DEFAULT_DEADLINE_SECONDS)
        self.roster = Roster(size=self.size)

    def meet(self) -> None:
        """Tell each other the hosts; ranks that share one are numbered by `local_rank`."""
        self.roster.hosts = self.gather(self.host)
        same_host = [r for r, host in enumerate(self.roster.hosts) if host == self.host]
        self.local_rank, self.local_size = same_host.index(self.rank), len(same_host)

    def at_work(self) -> AbstractContextManager[None]:
        """Around what may take long, right before the ranks meet again: others know it alive.

        No other method that speaks to ranks may be called within it.
        """
        return nullcontext()

    @property
    def is_trainer(self) -> bool:
        return self.rank == TRAINER

    @property
    def host(self) -> str:
        return platform.node()

    def library(self) -> str:
        return "none"

    def share(self, text: str) -> str:
        """The text of rank 0, on every rank."""
        return self.gather(text if self.is_trainer else "")[0]

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks in rank order, on every rank; "" for one that is lost."""
        return [text]

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
        return [data]

    def spread(self, values: Bytes) -> None:
        """Fill `values` with those of rank 0, which sends them to each rank by itself."""

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The element-wise sum over all ranks, on every rank.

        Raises:
            DeadlineError: a rank was lost, and its values with it.
        """
        return values.copy()

    def trainer_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> TrainerLink:
        """Rank 0's end; it meets the other ranks, which ask for theirs then."""
        home = Home(groups=[[TRAINER]], area_slots=0)
        return TrainerLink(NoChannel(), self.roster, shape, allocate, home)

    def attacker_link(
        self, shape: LinkShape, allocate: Allocate, pin: Pin = no_device
    ) -> AttackerLink:
        """An attacker's end; it meets rank 0, which asks for its own then."""
        raise AssertionError("a rank that is alone trains")

    def require_all_there(self) -> None:
        """What takes all ranks is to begin.

        Raises:
            DeadlineError: on rank 0, one was lost; the others wait for rank 0 to end the job.
        """

    def divide(self, teams: Sequence[Sequence[int]]) -> "Division":
        """Divide the ranks into teams; all ranks are there and ask for the same ones.

        Raises:
            DeadlineError: a rank was lost meanwhile.
        """
        return Division(team=self)

    def sums(self, allocate: Allocate) -> Sums:
        """The sums of these ranks, of which each is a trainer."""
        raise AssertionError("a rank that is alone has nobody to add to")

    def abort(self, exit_code: int) -> None:
        """End every rank of the job at once; a rank that is alone ends by itself."""

    def leave(self, exit_code: int) -> None:
        """End this rank where MPI's own end would wait for ranks that are lost, else return."""
