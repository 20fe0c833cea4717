"""Several hosts on one machine, with a slow network between them. Knows no MPI.

A host is a network namespace of its own, and has a host name of its own. Its only way out is a TUN
device, whose packets `wires.py` carries to the others, as late and as fast as asked for: a kernel
with `netem` is not needed, root is. Host, device and carrier live as long as the process that made
them, and leave nothing behind, however it ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

WIRES = Path(__file__).resolve().with_name("wires.py")
AGENT = Path(__file__).resolve().with_name("agent.sh")
NETWORK = "198.18.0"
"""Addresses that are set aside for benchmarks (RFC 2544)."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host: its address, and the process that holds its namespaces."""

    address: str
    pid: int

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on this host."""
        return ["nsenter", f"--target={self.pid}", "--net", "--uts", "--", *command]


class NoHostsError(Exception):
    """Namespaces or TUN devices cannot be made here; the text says why."""


@contextmanager
def hosts(number: int, *, delay_seconds: float, bits_per_second: float) -> Iterator[list[Host]]:
    """So many hosts, `delay_seconds` from each other one way.

    Each can send, and receive at the same time, `bits_per_second`.

    Raises:
        NoHostsError: they cannot be made.
    """
    with ExitStack() as stack:
        made = [stack.enter_context(_host(index)) for index in range(number)]
        pids = [str(host.pid) for host in made]
        words = [sys.executable, str(WIRES), str(delay_seconds), str(bits_per_second), *pids]
        stack.enter_context(_waiting(["nice", "-n", "-15", *words], "the wires between hosts"))
        yield made


def sent_bytes(host: Host) -> int:
    """What has left a host, headers included."""
    words = host.inside(["cat", "/proc/net/dev"])
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    devices = (line.partition(":") for line in lines if ":" in line)
    return sum(int(told.split()[8]) for name, _, told in devices if name.strip() != "lo")


def mpirun_options(made: Sequence[Host], ranks_per_host: int) -> list[str]:
    """What Open MPI's `mpirun`, run on the first host, needs to start ranks on all of them."""
    places = ",".join(f"{host.address}:{ranks_per_host}" for host in made)
    return ["--host", places, "--prtemca", "plm_ssh_agent", str(AGENT), "--map-by", "slot"]


def agent_environment(made: Sequence[Host]) -> dict[str, str]:
    """What tells `agent.sh` where the hosts are."""
    return {"MPIADV_HOSTS": " ".join(f"{host.address}={host.pid}" for host in made)}


@contextmanager
def _host(index: int) -> Iterator[Host]:
    script = f"hostname host{index} && ip link set lo up && echo ready && exec cat"
    with _waiting(["unshare", "--net", "--uts", "sh", "-c", script], "a host") as process:
        yield Host(address=f"{NETWORK}.{index + 1}", pid=process.pid)


def _started(words: Sequence[str], what: str) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise NoHostsError(f"{what} cannot be made: {error}") from None


@contextmanager
def _waiting(words: Sequence[str], what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that says `ready`, and ends when its standard input does: with us at the latest."""
    with _started(words, what) as process:
        assert process.stdin and process.stdout and process.stderr
        if process.stdout.readline().strip() != "ready":
            process.kill()
            why = process.stderr.read().strip().splitlines() or ["no message"]
            raise NoHostsError(f"{what} cannot be made: {why[-1]}")
        try:
            yield process
        finally:
            process.stdin.close()
            process.kill()
