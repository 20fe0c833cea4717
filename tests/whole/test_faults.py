"""Faults in the middle of a run: it ends soon, says why once, and goes on with the same bits."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest
from disk_faults import largest_file
from kill_everything import Killing, kill_everything
from launching import hash_alone, hash_of, launch, launched, train_rows, words_of
from mpi_runner import finished, pids_of

from mpiadv.runlog import read_table

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]

DEADLINE_SECONDS, END_SECONDS = 90.0, 45.0
"""After which a rank that is silent ends a run, and from a fault to the end of the whole job."""


def _faulty(fault: str, *, rank: int, training: bool = False) -> dict[str, Any]:
    arguments = f"{{fault: {fault}, rank: {rank}, call: 30, training: {str(training).lower()}}}"
    # Long enough for a slow attacker to get its turns: the fault ends the run.
    steps = {"training__num_steps": 3000, "deadline_seconds": DEADLINE_SECONDS}
    return {"model__name": "bad_parts:faulty", "model__arguments": arguments, **steps}


NOT_FINITE = {
    "in_training": _faulty("nan", rank=0, training=True),
    "in_an_attackers_gradient": _faulty("nan", rank=1),
}


@pytest.mark.parametrize("settings", NOT_FINITE.values(), ids=NOT_FINITE.keys())
def test_loss_that_is_not_a_number_ends_the_run_naming_step_and_ticket(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    completed = _launch_and_leave_nobody(words_of(tmp_path / "run", **settings))
    assert completed.returncode == 1
    told = re.fullmatch(
        r"mpiadv: error on rank 0: the training loss is nan at step (\d+), ticket \1 \(crafted by "
        r"rank [01]\): lower optimizer.learning_rate or check the data\n",
        completed.stderr,
    )
    assert told, completed.stderr
    assert train_rows(tmp_path / "run")["step"].tolist() == list(range(int(told[1])))
    last = read_table(tmp_path / "run" / "log.h5", "events")[-1]
    assert (last["kind"], last["step"]) == (b"diverged", int(told[1]))


RAISING = {
    "trainer": (0, _faulty("raise", rank=0, training=True)),
    "attacker": (1, _faulty("raise", rank=1)),
}


@pytest.mark.parametrize(("rank", "settings"), RAISING.values(), ids=RAISING.keys())
def test_exception_ends_every_rank_soon_and_is_printed_once_with_its_rank(
    tmp_path: Path, rank: int, settings: dict[str, Any]
) -> None:
    completed = _launch_and_leave_nobody(words_of(tmp_path / "run", **settings))
    assert completed.returncode == 1
    assert completed.stderr.startswith(f"mpiadv: rank {rank} on ")
    assert completed.stderr.count("Traceback (most recent call last):") == 1
    assert re.search(r"\nRuntimeError: fault at [\d.]+\n$", completed.stderr)
    _assert_log_is_whole(tmp_path / "run")


def test_attacker_that_vanishes_ends_every_rank_soon(tmp_path: Path) -> None:
    completed = _launch_and_leave_nobody(words_of(tmp_path / "run", **_faulty("vanish", rank=1)))
    assert completed.returncode == 3
    assert re.search(r"Process name: .*,1\]\n\s*Exit code: +3\n", completed.stderr)
    _assert_log_is_whole(tmp_path / "run")


SLOW = {
    "model__name": "bad_parts:slow",
    "model__arguments": "{milliseconds: 5}",
    "training__num_steps": 200,
    "checkpoint__every_steps": 100,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the run on one rank that never waits, and is not disturbed."""
    quick = {**SLOW, "model__arguments": "{milliseconds: 0}"}
    return hash_alone(tmp_path_factory.mktemp("alone") / "run", **quick)


def test_terminated_and_signalled_run_ends_as_the_undisturbed_one(
    tmp_path: Path, alone: str
) -> None:
    run = tmp_path / "run"
    for ranks, number in ((3, signal.SIGTERM), (2, signal.SIGUSR1)):
        completed = _interrupt(words_of(run, **SLOW), ranks, number)
        assert completed.returncode == 75
        assert re.fullmatch(r"mpiadv: asked to end: .*\n", completed.stderr)
        assert re.search(
            r"interrupted at step \d+, checkpoint saved: go on with --resume\n$", completed.stdout
        )
    assert launch([*words_of(run, **SLOW), "--resume"], ranks=2).returncode == 0
    assert hash_of(run) == alone
    assert train_rows(run)["step"].tolist() == list(range(200))
    # Rank 2 is of the first start alone, which may end before a batch of its own is trained on.
    assert 1 in train_rows(run)["rank"]


@contextmanager
def full_disk_for(process: Popen[str]) -> Iterator[None]:
    """The trainer's disk is full while it trains: no file of it can be written any more."""
    _await_line(process, "step ")
    with largest_file(0, pids_of(process)[0]):
        yield


def test_full_disk_in_the_middle_of_a_run_costs_nothing_but_two_lines(
    tmp_path: Path, alone: str
) -> None:
    run = tmp_path / "run"
    settings = {**SLOW, "checkpoint__every_steps": 20}
    with launched(words_of(run, **settings), ranks=2) as process:
        with full_disk_for(process):
            lines = [_await_line(process, f"warning: {what}") for what in (run, "the checkpoint")]
        completed = finished(process, timeout=120)
    assert (completed.returncode, completed.stderr) == (0, "")
    told = "log.h5 could not be written (file too large): training goes on"
    assert told in lines[0].replace("(File", "(file")  # which of the two depends on HDF5's call
    assert "warning" not in completed.stdout
    assert re.search(
        r"\nfailed checkpoints +\d+ of \d+ \(.*\); the newest one is", completed.stdout
    )
    assert re.search(r"\nfailed log writes +\d+ \(.*\); no row is missing\n", completed.stdout)
    assert hash_of(run) == alone
    assert train_rows(run)["step"].tolist() == list(range(200))


def test_interruption_on_a_full_disk_says_that_its_checkpoint_is_missing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with launched(words_of(run, **SLOW), ranks=2) as process, full_disk_for(process):
        process.send_signal(signal.SIGUSR1)
        completed = finished(process, timeout=60)
    assert completed.returncode == 1
    assert re.fullmatch(
        r"mpiadv: asked to end: .*\n"
        r"mpiadv: error on rank 0: interrupted at step \d+, and its checkpoint could not be "
        r"written \(File too large\): there is no checkpoint; free space, or whatever it takes, "
        r"then go on with --resume\n",
        completed.stderr,
    )


def test_run_whose_folder_was_deleted_ends_with_its_figures_and_a_clear_line(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with launched(words_of(run, **SLOW), ranks=1) as process:
        _await_line(process, "step ")
        shutil.rmtree(run)
        completed = finished(process, timeout=120)
    assert completed.returncode == 1
    assert re.fullmatch(
        r"mpiadv: error on rank 0: \S+run could not take the end of the run \(No such file or "
        r"directory\), of its checkpoints there is no checkpoint: .*\n",
        completed.stderr,
    )
    assert "natural accuracy" in completed.stdout
    assert not run.exists()


def test_killed_again_and_again_the_run_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    report = kill_everything(Killing(num_kills=4, ranks=2, seed=42, folder=tmp_path))
    assert report.kills["training"] > 0
    assert report.num_resumed > 0
    assert report.num_finished > 0


def _launch_and_leave_nobody(words: list[str]) -> CompletedProcess[str]:
    """A run on two ranks to its end, by which no rank is left, soon after its fault."""
    with launched(words, ranks=2) as process:
        completed = finished(process, timeout=120)
        ended = time.time()
        assert pids_of(process) == {}
    fault = re.search(r"fault at ([\d.]+)", completed.stderr)
    assert fault is None or ended - float(fault[1]) < END_SECONDS
    return completed


def _interrupt(words: list[str], ranks: int, number: signal.Signals) -> CompletedProcess[str]:
    """Start or go on, and send the signal once training is under way."""
    with launched([*words, "--resume"], ranks=ranks) as process:
        _await_line(process, "step ")
        process.send_signal(number)
        return finished(process, timeout=120)


def _await_line(process: Popen[str], beginning: str) -> str:
    """The next line with this beginning; those before it are lost."""
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(beginning):
        assert process.poll() is None
    return line


def _assert_log_is_whole(run: Path) -> None:
    rows = train_rows(run)
    assert len(rows) > 0
    assert rows["step"].tolist() == list(range(len(rows)))
