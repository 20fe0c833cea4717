"""Two hosts with a slow network between them: the same bits as on one rank.

Skipped where network namespaces cannot be made: that takes root and a kernel with TUN devices.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import pytest
from end_to_end import TINY, Finished, Start, first_difference, run_all, staleness
from mpi_runner import launcher_or_skip, started

from benchmarks.hosts import Host, NoHostsError, agent_environment, hosts, mpirun_options

DELAY_SECONDS = 0.01
RANKS = 4
RULES = {
    "float32": staleness(16, 4, 4),
    "bfloat16": (*staleness(12, 3, 3, 1), "training.wire_dtype=bfloat16"),
}


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[Sequence[Host]]:
    try:
        with hosts(2, delay_seconds=DELAY_SECONDS, bits_per_second=1e9) as made:
            yield made
    except NoHostsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def runs(two_hosts: Sequence[Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each rule on all ranks of both hosts, and on one rank."""
    if not launcher_or_skip().is_open_mpi:
        pytest.skip("only Open MPI's mpirun is told of the hosts")
    folder = tmp_path_factory.mktemp("hosts")
    starts = [
        Start(folder=f"{name}-on-{ranks}", ranks=ranks, argv=(*TINY, *rule))
        for name, rule in RULES.items()
        for ranks in (RANKS, 1)
    ]
    run_all(
        starts,
        folder,
        ranks=RANKS,
        timeout=120,
        prefix=two_hosts[0].inside([]),
        options=mpirun_options(two_hosts, RANKS // 2),
        env=agent_environment(two_hosts),
    )
    return folder


SERVER = """
import socket
server = socket.create_server((%r, 5000))
print("listening", flush=True)
while True:
    server.accept()[0].sendall(b"hello")
"""
CLIENT = """
import socket, time
def seconds():
    began = time.perf_counter()
    assert socket.create_connection((%r, 5000)).recv(5) == b"hello"
    return time.perf_counter() - began
print(min(seconds() for _ in range(20)))
"""


def test_word_between_hosts_takes_the_delay_both_ways(two_hosts: Sequence[Host]) -> None:
    far = two_hosts[1]

    def python(host: Host, script: str) -> list[str]:
        return host.inside([sys.executable, "-c", script % far.address])

    with started(python(far, SERVER)) as server:
        assert server.stdout and server.stdout.readline() == "listening\n"
        from_near, from_far = (
            float(subprocess.check_output(python(host, CLIENT), timeout=60)) for host in two_hosts
        )
    # To be connected takes a way there and back, and the greeting may be on its heels.
    assert from_near >= 2 * DELAY_SECONDS > from_far


@pytest.mark.parametrize("rule", RULES)
def test_hash_over_two_hosts_is_that_of_one_rank(runs: Path, rule: str) -> None:
    run = Finished(path=runs / f"{rule}-on-{RANKS}")
    alone = Finished(path=runs / f"{rule}-on-1")
    with h5py.File(run.path / "log.h5", "r") as log:
        assert log.attrs["hosts"] == "host0,host0,host1,host1"
    assert run.codes == [[0] * RANKS]
    assert first_difference(run, alone) == ""
    assert run.hash == alone.hash
    names = ("natural_accuracy", "adversarial_accuracy")
    for name in names:
        assert run.table("evaluation")[name].tolist() == alone.table("evaluation")[name].tolist()
