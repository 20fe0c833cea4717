"""Carries packets between hosts: `wires.py DELAY_SECONDS BITS_PER_SECOND PID ...`. See `hosts.py`.

Makes a TUN device in the network namespace of each process, and ends with its standard input. A
packet leaves its host when those before it have left, arrives when those before it have arrived,
and is `DELAY_SECONDS` on its way. Packets that cannot leave yet wait in their host, as for any
network card. None is lost.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

NETWORK = "198.18.0"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
HEADER = struct.Struct("=BBHHHH")
"""What precedes each packet: flags, kind, bytes of headers, bytes of a segment, ...

The kernel hands over up to 64 KB at once and leaves it to the card to cut it up.
"""
FRAME_BYTES = 38
"""What Ethernet adds to each packet: header, checksum, preamble, gap."""
HEADERS_BYTES = 52
"""IP and TCP headers, which all segments repeat."""
AHEAD_SECONDS = 0.002
"""How long before a card is free its next packet is fetched."""


class Card:
    """A host's network card."""

    def __init__(self, index: int, pid: int) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = f"adv{os.getpid()}x{index}"
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(self.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        subprocess.run(["ip", "link", "set", name, "netns", str(pid)], check=True)
        inside = ["nsenter", f"--target={pid}", "--net", "--", "ip"]
        address = f"{NETWORK}.{index + 1}/24"
        subprocess.run([*inside, "address", "add", address, "dev", name], check=True)
        subprocess.run([*inside, "link", "set", name, "mtu", "1500", "up"], check=True)
        self.free_to_send = 0.0
        self.free_to_receive = 0.0
        self.arriving: deque[tuple[float, bytes]] = deque()


class Wires:
    """All cards, and what is on its way between them."""

    def __init__(self, cards: list[Card], delay_seconds: float, bits_per_second: float) -> None:
        self._cards = cards
        self._delay = delay_seconds
        self._rate = bits_per_second / 8

    def run(self) -> None:
        """Carry until standard input ends."""
        while True:
            now = time.monotonic()
            for card in self._cards:
                self._deliver(card, now)
            idle = [c for c in self._cards if c.free_to_send <= now + AHEAD_SECONDS]
            readable, _, _ = select.select([0, *(c.fd for c in idle)], [], [], self._pause(now))
            if 0 in readable and not os.read(0, 1):
                return
            for card in idle:
                if card.fd in readable:
                    self._take(card)

    def _pause(self, now: float) -> float | None:
        """Seconds until a packet arrives or a card is free; None if neither is to come."""
        moments = [card.arriving[0][0] for card in self._cards if card.arriving]
        busy = [c.free_to_send - AHEAD_SECONDS for c in self._cards]
        moments += [moment for moment in busy if moment > now]
        return max(0.0, min(moments) - now) if moments else None

    def _take(self, card: Card) -> None:
        packet = os.read(card.fd, 70_000)
        now = time.monotonic()
        target = self._target(packet)
        if target is None:
            return
        seconds = _bytes_on_the_wire(packet) / self._rate
        card.free_to_send = max(now, card.free_to_send) + seconds
        target.free_to_receive = max(card.free_to_send, target.free_to_receive + seconds)
        target.arriving.append((target.free_to_receive + self._delay, packet))

    def _target(self, packet: bytes) -> Card | None:
        is_ipv4 = packet[HEADER.size] >> 4 == 4
        number = packet[HEADER.size + 19]
        return self._cards[number - 1] if is_ipv4 and 0 < number <= len(self._cards) else None

    @staticmethod
    def _deliver(card: Card, now: float) -> None:
        while card.arriving and card.arriving[0][0] <= now:
            os.write(card.fd, card.arriving.popleft()[1])


def _bytes_on_the_wire(packet: bytes) -> int:
    segment = HEADER.unpack_from(packet)[3]
    size = len(packet) - HEADER.size
    num_segments = max(1, -(-(size - HEADERS_BYTES) // segment)) if segment else 1
    return size + (num_segments - 1) * HEADERS_BYTES + num_segments * FRAME_BYTES


def main() -> None:
    """Make the cards and carry."""
    delay, rate, *pids = sys.argv[1:]
    cards = [Card(index, int(pid)) for index, pid in enumerate(pids)]
    print("ready", flush=True)
    Wires(cards, float(delay), float(rate)).run()


if __name__ == "__main__":
    main()
