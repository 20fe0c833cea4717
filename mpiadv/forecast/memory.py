"""How much memory a job takes: its ranks by what they do, and its hosts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a rank: the process without messages, these, and the GPU's (0 without one)."""

    process: int
    versions: int
    """Those that it lays out in the memory of its host."""
    batches: int
    device: int

    @property
    def in_host(self) -> int:
        return self.process + self.versions + self.batches


@dataclass(frozen=True, kw_only=True)
class JobMemory:
    """A version lies once in each host: with the trainer, or with the host's leader.

    The other attackers of a host read it there, and hold none of their own.
    """

    host_sizes: Sequence[int]
    """How many ranks each host has, the trainer's first."""
    num_trainers: int = 1
    trainer: Memory
    leader: Memory
    attacker: Memory

    @property
    def num_ranks(self) -> int:
        return sum(self.host_sizes)

    @property
    def of_hosts(self) -> list[int]:
        """Bytes of each host's ranks together; libraries that they share count for each."""
        return [
            count * self._first_of(number).in_host + (size - count) * self.attacker.in_host
            for number, (size, count) in enumerate(zip(self.host_sizes, self._firsts, strict=True))
        ]

    @property
    def _firsts(self) -> list[int]:
        """How many ranks of each host have versions of their own: its trainers, or its leader."""
        each = max(1, self.num_trainers // len(self.host_sizes))
        return [min(each, size) for size in self.host_sizes]

    def _first_of(self, number: int) -> Memory:
        """A rank of a host, by its number, that has versions of its own."""
        hosts_of_team = max(1, len(self.host_sizes) // self.num_trainers)
        return self.trainer if number % hosts_of_team == 0 else self.leader

    @property
    def by_part(self) -> dict[str, Memory]:
        """The trainer, a leader and any other attacker; only those that there are."""
        parts = {"trainer": self.trainer}
        if len(self.host_sizes) > self.num_trainers:
            parts["leader"] = self.leader
        if max(self.host_sizes) > max(self._firsts):
            parts["attacker"] = self.attacker
        return parts

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        hosts = [
            {"ranks": size, "bytes": num_bytes}
            for size, num_bytes in zip(self.host_sizes, self.of_hosts, strict=True)
        ]
        return {**{part: asdict(memory) for part, memory in self.by_part.items()}, "hosts": hosts}
