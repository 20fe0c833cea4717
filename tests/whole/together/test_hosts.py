"""Several hosts, each of which a leader brings the versions: the same bits as on one rank.

All ranks are on this machine, and take themselves to be on hosts of their own. `test_network.py`
has hosts with a network between them.
"""

from itertools import product
from pathlib import Path

import pytest
from end_to_end import Finished, Start, assert_same_bits, laid_out_on
from host_cases import (
    ALONE,
    CASES,
    EACH_BY_ITSELF,
    FEW_CASES,
    FEW_LAYOUTS,
    LAYOUTS,
    folder_of,
    starts_on,
)

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]


def starts(folder: Path) -> list[Start]:
    """Each case on one rank and on few layouts, few cases on all, and a few without sharing."""
    unshared = starts_on(FEW_LAYOUTS, shares_memory=False)
    return [*starts_on([ALONE, *FEW_LAYOUTS], CASES), *starts_on(LAYOUTS), *unshared]


def assert_bits_of_one_rank(runs: Path, run: Finished, case: str) -> None:
    assert {code for codes in run.codes for code in codes} == {0}
    assert_same_bits(run, Finished(path=runs / folder_of(case, ALONE)))


@pytest.mark.parametrize(
    ("case", "hosts"), [*product(CASES, FEW_LAYOUTS), *product(FEW_CASES, LAYOUTS)]
)
def test_hash_on_several_hosts_is_that_of_one_rank(runs: Path, case: str, hosts: str) -> None:
    run = Finished(path=runs / folder_of(case, hosts))
    assert run.sharing.endswith(laid_out_on(hosts))
    assert_bits_of_one_rank(runs, run, case)


@pytest.mark.parametrize(("case", "hosts"), [*product(FEW_CASES, FEW_LAYOUTS)])
def test_hash_where_each_rank_leads_itself_is_that_of_one_rank(
    runs: Path, case: str, hosts: str
) -> None:
    run = Finished(path=runs / folder_of(case, hosts, shares_memory=False))
    assert run.sharing.endswith(laid_out_on(EACH_BY_ITSELF[: len(hosts)]))
    assert_bits_of_one_rank(runs, run, case)
