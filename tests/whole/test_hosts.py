"""Several hosts, each of which a leader brings the versions: the same bits as on one rank.

All ranks are on this machine, and take themselves to be on hosts of their own. `test_network.py`
has hosts with a network between them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from end_to_end import Finished, assert_same_bits, laid_out_on, run_all
from host_cases import (
    ALONE,
    CASES,
    EACH_BY_ITSELF,
    FEW_CASES,
    FEW_LAYOUTS,
    LAYOUTS,
    MOST_RANKS,
    folder_of,
    starts_on,
)
from launching import hash_alone, hash_of, launched, train_rows, words_of
from mpi_runner import finished, pids_of

from mpiadv.runlog import read_table

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each case on one rank and on few layouts, few cases on all, and a few without sharing."""
    folder = tmp_path_factory.mktemp("runs")
    unshared = starts_on(FEW_LAYOUTS, shares_memory=False)
    starts = [*starts_on([ALONE, *FEW_LAYOUTS], CASES), *starts_on(LAYOUTS), *unshared]
    run_all(starts, folder, ranks=MOST_RANKS, timeout=900)
    return folder


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


def slow_on(ranks_per_host: int, num_steps: int, *, milliseconds: float) -> dict[str, object]:
    """The settings of a run whose steps take so long or longer."""
    return {
        "model__name": "bad_parts:slow",
        "model__arguments": f"{{milliseconds: {milliseconds}, ranks_per_host: {ranks_per_host}}}",
        "training__num_steps": num_steps,
        "checkpoint__every_steps": 0,
    }


def hash_of_quick(folder: Path, settings: Mapping[str, object]) -> str:
    """Of the run on one rank that never waits, which changes no bits."""
    return hash_alone(folder, **settings | {"model__arguments": "{milliseconds: 0}"})


def await_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Wait until this training step is in the log."""
    while not (run / "log.h5").exists() or len(train_rows(run)) <= step:
        assert process.poll() is None
        time.sleep(0.05)


def losses_of(run: Path) -> dict[int, tuple[int, str]]:
    """Of each rank that was lost the training step then, and how people are told."""
    events = [event for event in read_table(run / "log.h5", "events") if event["kind"] == b"lost"]
    told = [(int(event["step"]), event["text"].decode()) for event in events]
    return {int(text.split()[1]): (step, text) for step, text in told}


def crafters_after(run: Path, step: int) -> set[int]:
    rows = train_rows(run)
    return set(rows["rank"][rows["step"] > step].tolist())


def test_leader_that_is_stopped_for_ten_deadlines_is_done_without(tmp_path: Path) -> None:
    run, deadline_seconds = tmp_path / "run", 2
    settings = slow_on(2, num_steps=450, milliseconds=60)  # longer than it is stopped
    words = words_of(run, **settings, deadline_seconds=deadline_seconds, overdue_seconds=0.5)
    with launched([*words, "--fault-tolerant"], ranks=4) as process:
        await_step(process, run, 20)
        leader = pids_of(process)[2]
        os.kill(leader, signal.SIGSTOP)
        time.sleep(10.5 * deadline_seconds)
        os.kill(leader, signal.SIGCONT)
        completed = finished(process, timeout=240)
        assert pids_of(process) == {}
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert re.search(r"mpiadv: rank 2 on \S+ leaves: the trainer", completed.stderr)
    step, text = losses_of(run)[2]
    assert re.match(r"rank 2 on \S+ has not answered for 2 s and is given up: ", text)
    assert 3 in crafters_after(run, step)
    assert hash_of(run) == hash_of_quick(tmp_path / "alone", settings)


KILLED_STEPS, KILLED_AFTER, KILLED_MILLISECONDS = 250, 50, 20


@pytest.fixture(scope="module")
def hash_of_killed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash that runs end with whose leaders are killed."""
    settings = slow_on(0, KILLED_STEPS, milliseconds=KILLED_MILLISECONDS)
    return hash_of_quick(tmp_path_factory.mktemp("alone") / "run", settings)


KILLED = {
    "alone": (4, 2, [2]),
    "with_its_successor": (6, 3, [3, 4]),
    "of_all_other_hosts": (6, 2, [2, 4]),
}
"""How many ranks there are, and on each host, and which of them die at once."""


@pytest.mark.parametrize(("ranks", "ranks_per_host", "killed"), KILLED.values(), ids=KILLED)
def test_leader_that_is_killed_in_training_costs_no_bits(
    tmp_path: Path, hash_of_killed: str, ranks: int, ranks_per_host: int, killed: list[int]
) -> None:
    run = tmp_path / "run"
    settings = slow_on(ranks_per_host, KILLED_STEPS, milliseconds=KILLED_MILLISECONDS)
    words = [*words_of(run, **settings, deadline_seconds=60), "--fault-tolerant"]
    with launched(words, ranks=ranks) as process:
        await_step(process, run, KILLED_AFTER)
        pids = pids_of(process)
        for rank in killed:
            os.kill(pids[rank], signal.SIGKILL)
        completed = finished(process, timeout=240)
        assert pids_of(process) == {}
    assert completed.returncode == 0, completed.stdout + completed.stderr
    losses = losses_of(run)
    assert set(losses) == set(killed)
    for rank, (_, text) in losses.items():
        assert re.match(rf"rank {rank} on \S+ died: ", text)
    last_loss = max(lost_at for lost_at, _ in losses.values())
    assert set(range(1, ranks)) - set(killed) <= crafters_after(run, last_loss)
    assert hash_of(run) == hash_of_killed
