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
    trainer: Memory
    leader: Memory
    attacker: Memory

    @property
    def num_ranks(self) -> int:
        return sum(self.host_sizes)

    @property
    def of_hosts(self) -> list[int]:
        """Bytes of each host's ranks together; libraries that they share count for each."""
        first = [self.trainer, *[self.leader] * (len(self.host_sizes) - 1)]
        return [
            one.in_host + (size - 1) * self.attacker.in_host
            for one, size in zip(first, self.host_sizes, strict=True)
        ]

    @property
    def by_part(self) -> dict[str, Memory]:
        """The trainer, a leader and any other attacker; only those that there are."""
        parts = {"trainer": self.trainer}
        if len(self.host_sizes) > 1:
            parts["leader"] = self.leader
        if max(self.host_sizes) > 1:
            parts["attacker"] = self.attacker
        return parts

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        hosts = [
            {"ranks": size, "bytes": num_bytes}
            for size, num_bytes in zip(self.host_sizes, self.of_hosts, strict=True)
        ]
        return {**{part: asdict(memory) for part, memory in self.by_part.items()}, "hosts": hosts}
