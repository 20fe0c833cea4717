"""Who takes part in a job, and who is gone from it. Knows no MPI."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Absence(Enum):
    """Why a rank takes no part any more."""

    DIED = "died"
    DISMISSED = "dismissed"
    """It did not answer and was given up: it may come back, and is told to leave then."""


@dataclass(kw_only=True)
class Roster:
    """The ranks of a job, or of a team, as the trainer knows them.

    `hosts` by rank, "" where none was told. `numbers`: what people know each rank by, the job's.
    """

    size: int
    hosts: list[str] = field(default_factory=list)
    numbers: Sequence[int] = ()
    absent: dict[int, Absence] = field(default_factory=dict)
    doubted: dict[int, str] = field(default_factory=dict)
    """Ranks that sent what proves nothing, and what that was."""
    _told: set[int] = field(default_factory=set)

    @property
    def attackers(self) -> list[int]:
        """The ranks other than the trainer that are still there."""
        return [rank for rank in range(1, self.size) if rank not in self.absent]

    @property
    def dismissed(self) -> list[int]:
        """The ranks that were given up and may still exist."""
        return [rank for rank, why in self.absent.items() if why is Absence.DISMISSED]

    def lose(self, rank: int, why: Absence) -> bool:
        """Book that a rank is gone; False when it was gone before."""
        was_there = rank not in self.absent
        if was_there or why is Absence.DIED:
            self.absent[rank] = why
        return was_there

    def take_doubted(self) -> dict[int, str]:
        """Those doubted of whom nobody was told yet."""
        told, self._told = self._told, set(self.doubted)
        return {rank: why for rank, why in self.doubted.items() if rank not in told}

    def believes(self, rank: int) -> bool:
        return rank not in self.absent and rank not in self.doubted

    def name(self, rank: int) -> str:
        host = self.hosts[rank] if rank < len(self.hosts) else ""
        number = self.number(rank)
        return f"rank {number} on {host}" if host else f"rank {number}"

    def number(self, rank: int) -> int:
        """What people know a rank by."""
        return self.numbers[rank] if self.numbers else rank
