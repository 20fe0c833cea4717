"""Messages over TCP alone, as between hosts: the bits are those of one rank."""

from itertools import product
from pathlib import Path

import host_cases
import pytest
from end_to_end import Finished, assert_same_bits, laid_out_on, run_all
from host_cases import ALONE, FEW_CASES, starts_on
from run_cases import CASES, TCP_CASES, TCP_RANKS, folder_of, starts_with

pytestmark = pytest.mark.long

LAYOUTS = ("00011", "01123")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few cases on one host whose ranks share no memory, a few on several hosts that do."""
    folder = tmp_path_factory.mktemp("tcp")
    starts = [
        start
        for case in TCP_CASES
        for start in starts_with(case, [*TCP_RANKS, 1], *CASES[case], shares_memory=False)
    ]
    starts += starts_on([*LAYOUTS, ALONE])
    run_all(starts, folder, ranks=max(TCP_RANKS), timeout=600, btl="self,tcp")
    return folder


@pytest.mark.parametrize(("case", "ranks"), [*product(TCP_CASES, TCP_RANKS)])
def test_hash_is_the_same_over_tcp(runs: Path, case: str, ranks: int) -> None:
    run, alone = (Finished(path=runs / folder_of(case, size)) for size in (ranks, 1))
    assert run.codes == [[0] * ranks]
    assert_same_bits(run, alone)


@pytest.mark.parametrize(("case", "hosts"), [*product(FEW_CASES, LAYOUTS)])
def test_hash_on_several_hosts_over_tcp_is_that_of_one_rank(
    runs: Path, case: str, hosts: str
) -> None:
    run, alone = (Finished(path=runs / host_cases.folder_of(case, on)) for on in (hosts, ALONE))
    assert run.codes == [[0] * len(hosts)]
    assert run.sharing.endswith(laid_out_on(hosts))
    assert_same_bits(run, alone)
