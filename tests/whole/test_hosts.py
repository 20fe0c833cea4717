"""Several hosts, each of which a leader brings the versions: the same bits as on one rank.

All ranks are on this machine, and take themselves to be on hosts of their own. `test_network.py`
has hosts with a network between them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path

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
from launching import hash_of, launch, launched, train_rows, words_of
from mpi_runner import finished, pids_of

from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.runlog import read_table

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]

RULES = {"constant": staleness(16, 16, 4), "refreshed": staleness(16, 4, 4, 1)}
CASES = {
    f"{rule}-{wire}": (*words, f"training.wire_dtype={wire}")
    for rule, words in RULES.items()
    for wire in ("float32", "float16", "bfloat16")
}

FEW_CASES = ("constant-float32", "refreshed-bfloat16")

LAYOUTS = ("001", "00123", "00001111", "01230123")
"""The host of each rank, a character each."""
FEW_LAYOUTS = ("00011", "00112233")
ALONE = "0"
EACH_BY_ITSELF = "01234567"
MOST_RANKS = 8


def starts_on(layouts: Sequence[str], cases: Collection[str] = FEW_CASES) -> list[Start]:
    return [
        Start(
            folder=f"{case}-on-{hosts}", ranks=len(hosts), argv=(*TINY, *CASES[case]), hosts=hosts
        )
        for case in cases
        for hosts in layouts
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each case on one rank and on few layouts, few cases on all; hosts share memory."""
    folder = tmp_path_factory.mktemp("runs")
    starts = [*starts_on([ALONE, *FEW_LAYOUTS], CASES), *starts_on(LAYOUTS)]
    run_all(starts, folder, ranks=MOST_RANKS, timeout=900)
    return folder


@pytest.fixture(scope="module")
def runs_without_sharing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the layouts, each rank leading itself."""
    folder = tmp_path_factory.mktemp("without-sharing")
    starts = starts_on(FEW_LAYOUTS)
    run_all(starts, folder, ranks=MOST_RANKS, timeout=600, env={DISABLE_SHARING: "1"})
    return folder


@pytest.fixture(scope="module")
def runs_over_tcp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the layouts, with messages over TCP alone."""
    folder = tmp_path_factory.mktemp("tcp")
    run_all(starts_on(FEW_LAYOUTS), folder, ranks=MOST_RANKS, timeout=600, btl="self,tcp")
    return folder


def run_on(folder: Path, case: str, hosts: str) -> Finished:
    return Finished(path=folder / f"{case}-on-{hosts}")


def assert_same_bits(run: Finished, alone: Finished) -> None:
    assert {code for codes in run.codes for code in codes} == {0}
    assert first_difference(run, alone) == ""
    assert run.hash == alone.hash


each_few = pytest.mark.parametrize("case", FEW_CASES)
each_layout = pytest.mark.parametrize("hosts", FEW_LAYOUTS)


@pytest.mark.parametrize(
    ("case", "hosts"), [*product(CASES, FEW_LAYOUTS), *product(FEW_CASES, LAYOUTS)]
)
def test_hash_on_several_hosts_is_that_of_one_rank(runs: Path, case: str, hosts: str) -> None:
    run = run_on(runs, case, hosts)
    assert run.sharing.endswith(laid_out_on(hosts))
    assert_same_bits(run, run_on(runs, case, ALONE))


@each_few
@each_layout
def test_hash_where_each_rank_leads_itself_is_that_of_one_rank(
    runs: Path, runs_without_sharing: Path, case: str, hosts: str
) -> None:
    run = run_on(runs_without_sharing, case, hosts)
    assert run.sharing.endswith(laid_out_on(EACH_BY_ITSELF[: len(hosts)]))
    assert_same_bits(run, run_on(runs, case, ALONE))


@each_few
@each_layout
def test_hash_on_several_hosts_over_tcp_is_that_of_one_rank(
    runs: Path, runs_over_tcp: Path, case: str, hosts: str
) -> None:
    run = run_on(runs_over_tcp, case, hosts)
    assert run.sharing.endswith(laid_out_on(hosts))
    assert_same_bits(run, run_on(runs, case, ALONE))


RANKS = 6


def slow_on(ranks_per_host: int, num_steps: int, *, milliseconds: float = 10) -> dict[str, object]:
    """The settings of a run whose steps take so long or longer."""
    return {
        "model__name": "bad_parts:slow",
        "model__arguments": f"{{milliseconds: {milliseconds}, ranks_per_host: {ranks_per_host}}}",
        "training__num_steps": num_steps,
        "checkpoint__every_steps": 0,
    }


def hash_alone(folder: Path, settings: Mapping[str, object]) -> str:
    """Of the run on one rank that never waits, which changes no bits."""
    quick = {**settings, "model__arguments": "{milliseconds: 0}"}
    assert launch(words_of(folder, **quick), ranks=1).returncode == 0
    return hash_of(folder)


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
    run, deadline_seconds = tmp_path / "run", 3
    settings = slow_on(RANKS // 2, num_steps=1200, milliseconds=30)  # longer than it is stopped
    words = words_of(run, **settings, deadline_seconds=deadline_seconds, overdue_seconds=0.5)
    with launched([*words, "--fault-tolerant"], ranks=RANKS) as process:
        await_step(process, run, 20)
        leader = pids_of(process)[3]
        os.kill(leader, signal.SIGSTOP)
        time.sleep(10.5 * deadline_seconds)
        os.kill(leader, signal.SIGCONT)
        completed = finished(process, timeout=240)
        assert pids_of(process) == {}
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert re.search(r"mpiadv: rank 3 on \S+ leaves: the trainer", completed.stderr)
    step, text = losses_of(run)[3]
    assert re.match(r"rank 3 on \S+ has not answered for 3 s and is given up: ", text)
    assert crafters_after(run, step) & {4, 5}
    assert hash_of(run) == hash_alone(tmp_path / "alone", settings)


KILLED_STEPS = 500


@pytest.fixture(scope="module")
def hash_of_killed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash that runs end with whose leaders are killed."""
    return hash_alone(tmp_path_factory.mktemp("alone") / "run", slow_on(0, KILLED_STEPS))


KILLED = {
    "alone": (100, 3, [3]),
    "with_its_successor": (100, 3, [3, 4]),
    "of_all_other_hosts": (100, 2, [2, 4]),
}
"""The training step, how many ranks are on each host, and which of them die at once."""


@pytest.mark.parametrize(("step", "ranks_per_host", "killed"), KILLED.values(), ids=KILLED)
def test_leader_that_is_killed_in_training_costs_no_bits(
    tmp_path: Path, hash_of_killed: str, step: int, ranks_per_host: int, killed: list[int]
) -> None:
    run, settings = tmp_path / "run", slow_on(ranks_per_host, KILLED_STEPS)
    words = [*words_of(run, **settings, deadline_seconds=60), "--fault-tolerant"]
    with launched(words, ranks=RANKS) as process:
        await_step(process, run, step)
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
    assert set(range(1, RANKS)) - set(killed) <= crafters_after(run, last_loss)
    assert hash_of(run) == hash_of_killed
