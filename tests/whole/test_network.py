"""Hosts with a slow network between them: the same bits as on one rank.

Skipped where network namespaces cannot be made: that takes root and a kernel with TUN devices.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import pytest
from end_to_end import (
    TINY,
    Finished,
    Start,
    first_difference,
    laid_out_on,
    run_all,
    staleness,
)
from mpi_runner import launcher_or_skip, started

from benchmarks.hosts import Host, NoHostsError, agent_environment, hosts, mpirun_options

DELAY_SECONDS = 0.01
NUM_HOSTS = 4
RANKS_PER_HOST = 2
LAYOUTS = ("00112233", "0011223", "0011", "001")
"""The host of each rank, counted among those of the run."""
ALONE = "0"
RULES = {
    "float32": staleness(16, 4, 4),
    "bfloat16": (*staleness(12, 3, 3, 1), "training.wire_dtype=bfloat16"),
}


@pytest.fixture(scope="module")
def several_hosts() -> Iterator[Sequence[Host]]:
    try:
        with hosts(NUM_HOSTS, delay_seconds=DELAY_SECONDS, bits_per_second=1e9) as made:
            yield made
    except NoHostsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def runs(several_hosts: Sequence[Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each rule on each layout."""
    if not launcher_or_skip().is_open_mpi:
        pytest.skip("only Open MPI's mpirun is told of the hosts")
    folder = tmp_path_factory.mktemp("hosts")
    starts = [
        Start(folder=f"{name}-on-{layout}", ranks=len(layout), argv=(*TINY, *rule))
        for name, rule in RULES.items()
        for layout in (*LAYOUTS, ALONE)
    ]
    run_all(
        starts,
        folder,
        ranks=RANKS_PER_HOST * NUM_HOSTS,
        timeout=240,
        prefix=several_hosts[0].inside([]),
        options=mpirun_options(several_hosts, RANKS_PER_HOST),
        env=agent_environment(several_hosts),
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


def test_word_between_hosts_takes_the_delay_both_ways(several_hosts: Sequence[Host]) -> None:
    near, far = several_hosts[0], several_hosts[-1]

    def python(host: Host, script: str) -> list[str]:
        return host.inside([sys.executable, "-c", script % far.address])

    with started(python(far, SERVER)) as server:
        assert server.stdout and server.stdout.readline() == "listening\n"
        from_near, from_far = (
            float(subprocess.check_output(python(host, CLIENT), timeout=60)) for host in (near, far)
        )
    # To be connected takes a way there and back, and the greeting may be on its heels.
    assert from_near >= 2 * DELAY_SECONDS > from_far


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_hash_over_several_hosts_is_that_of_one_rank(runs: Path, rule: str, layout: str) -> None:
    run, alone = (Finished(path=runs / f"{rule}-on-{hosts}") for hosts in (layout, ALONE))
    with h5py.File(run.path / "log.h5", "r") as log:
        names = str(log.attrs["hosts"]).split(",")
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names))}
    assert "".join(numbers[name] for name in names) == layout
    assert run.sharing.endswith(laid_out_on(layout))
    assert run.codes == [[0] * len(layout)]
    assert first_difference(run, alone) == ""
    assert run.hash == alone.hash
    for name in ("natural_accuracy", "adversarial_accuracy"):
        expected = alone.table("evaluation")[name].tolist()
        assert run.table("evaluation")[name].tolist() == expected
