"""Virtual time, and when messages arrive in it: over one shared link, and within the host. Pure."""

import heapq
from collections import deque
from collections.abc import Callable, Collection
from itertools import count

from mpiadv.forecast.job import CARRIED_SHARE, COPIED_BYTES_PER_SECOND, Network

EAGER_BYTES = 65536
"""A longer message is announced and asked for before it is sent, as MPI does over TCP."""

HANDSHAKE = 2
"""Latencies that the announcement and the answer take."""

REMEMBERED_SENDINGS = 8
"""How many of the last sendings of a version a word may have to wait behind."""


class Clock:
    """Events in the order of their times; those of one time in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._number = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def __bool__(self) -> bool:
        """Whether anything is left to happen."""
        return bool(self._events)

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Have something happen; what is late already, now."""
        heapq.heappush(self._events, (max(time, self.now), next(self._number), event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.at(self.now + seconds, event)

    def advance(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()


class Transfers:
    """The trainer's link to the other hosts, each direction busy with one thing after another."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._bytes_per_second = CARRIED_SHARE * network.bytes_per_second
        self._out_busy_until = 0.0
        self._in_busy_until = 0.0
        self._sendings: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_SENDINGS)
        self.sent_bytes = 0
        self.received_bytes = 0

    def word(self, now: float, attacker: int) -> float:
        """When a few bytes sent to an attacker now arrive: after the version that is on its way."""
        if not self.network.is_remote(attacker):
            return now
        for start, end in self._sendings:
            now = end if start <= now < end else now
        return now + self.network.latency_seconds

    def answer(self, now: float, attacker: int) -> float:
        """When a few bytes that an attacker sends now arrive at the trainer."""
        return now + self.network.latency_seconds if self.network.is_remote(attacker) else now

    def version(
        self, now: float, num_bytes: int, attackers: Collection[int]
    ) -> dict[float, list[int]]:
        """When a version sent to all these attackers now arrives, and at whom.

        Within the trainer's host it is read where it lies. To the leaders of the others it goes by
        a broadcast along a binomial tree: what leaves the trainer shares its link and arrives
        together, and each leader passes it on.
        """
        network, arrivals = self.network, dict[float, list[int]]()
        remote = {network.host_of(each) for each in attackers} - {0}
        if remote:
            total = network.num_sendings(max(remote) + 1) * num_bytes
            self.sent_bytes += total
            start = max(now + self._handshake_seconds(num_bytes), self._out_busy_until)
            self._out_busy_until = start + total / self._bytes_per_second
            self._sendings.append((start, self._out_busy_until))
        for attacker in attackers:
            arrival = self._arrival(network.host_of(attacker), now, num_bytes)
            arrivals.setdefault(arrival, []).append(attacker)
        return arrivals

    def _arrival(self, host: int, now: float, num_bytes: int) -> float:
        """When what the trainer has just begun to send is at a host."""
        if host == 0:
            return now
        further = host.bit_count() - 1  # leaders that pass it on before
        hop = num_bytes / self._bytes_per_second + self._handshake_seconds(num_bytes)
        latency = self.network.latency_seconds
        return self._out_busy_until + latency + further * (hop + latency)

    def batch(self, now: float, num_bytes: int, attacker: int) -> float:
        """When a batch that an attacker sends now arrives at the trainer."""
        if not self.network.is_remote(attacker):
            return now + num_bytes / COPIED_BYTES_PER_SECOND
        self.received_bytes += num_bytes
        start = max(now + self._handshake_seconds(num_bytes), self._in_busy_until)
        self._in_busy_until = start + num_bytes / self._bytes_per_second
        return self._in_busy_until + self.network.latency_seconds

    def _handshake_seconds(self, num_bytes: int) -> float:
        return HANDSHAKE * self.network.latency_seconds if num_bytes > EAGER_BYTES else 0.0
