"""Trainers that are lost, silent or broken, and attackers of any team that are."""

import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from end_to_end import settled
from launching import hash_alone, hash_of, launch, launched, train_alone, train_rows, words_of
from mpi_runner import HERE, finished, pids_of, started_mpirun

from mpiadv.process.errors import UserError
from mpiadv.runlog import read_table
from mpiadv.storage.checkpoint import load_newest

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]

SLOW = {
    "model__name": "bad_parts:slow",
    "model__arguments": "{milliseconds: 4}",
    "training__num_steps": 150,
    "training__tickets_per_step": 4,
    "checkpoint__every_steps": 0,
}
HOSTS = "0123"
"""Two teams of two hosts each: ranks 0 and 2 train, 1 and 3 lead the second host of their team."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = {**SLOW, "model__arguments": "{milliseconds: 0}"}  # which changes no bits
    return hash_alone(tmp_path_factory.mktemp("alone") / "run", **settings)


def _kill(run: Path, victims: Sequence[int], seconds: float) -> int:
    """Kill so many seconds after training has begun; how the job ends."""
    words = words_of(run, **SLOW, training__trainers=2)
    command = ["python", "run_on_hosts.py", HOSTS, *words]
    options = ["--with-ft", "ulfm"]
    with started_mpirun(command, ranks=len(HOSTS), options=options, cwd=HERE) as process:
        while not (run / "log.h5").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(seconds)
        pids = pids_of(process)
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        completed = finished(process, timeout=90)
        deadline = time.monotonic() + 5
        while pids_of(process):
            assert time.monotonic() < deadline, "a rank outlives the job"
            time.sleep(0.05)
    return completed.returncode


def test_lost_attackers_and_leaders_of_both_teams_change_no_bits(
    tmp_path: Path, alone: str
) -> None:
    run = tmp_path / "run"
    assert _kill(run, [1, 3], 1.0) == 0
    assert hash_of(run) == alone
    lost = [event for event in read_table(run / "log.h5", "events") if event["kind"] == b"lost"]
    assert {event["text"].split()[1] for event in lost} == {b"1", b"3"}


def test_lost_host_of_a_trainer_ends_the_job_which_goes_on_with_other_teams(
    tmp_path: Path, alone: str
) -> None:
    run = tmp_path / "run"
    assert _kill(run, [2], 1.5) == 75
    told = [event["text"] for event in read_table(run / "log.h5", "events")]
    assert any(b"rank 2 on host2, which trains, was lost" in text for text in told)
    _require_last_step_saved(run)
    assert _gone_on_with(run) == alone


def _require_last_step_saved(run: Path) -> None:
    """None was due at that step: the lead has saved it before it ended the job."""
    steps = len(train_rows(run))
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None and checkpoint.step == steps


def _gone_on_with(run: Path) -> str:
    """The hash when one rank, which trains alone, has done the rest."""
    words = words_of(run, **SLOW, training__trainers=1)
    return train_alone(settled(words), resume=True)


def test_silent_trainer_ends_the_job_with_a_checkpoint(tmp_path: Path, alone: str) -> None:
    run = tmp_path / "run"
    words = words_of(run, **SLOW, training__trainers=2, deadline_seconds=3)
    with launched(words, ranks=3) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step"):
            assert process.poll() is None
        trainer = max(int(rank) for rank in _trainers(run))
        os.kill(pids_of(process)[trainer], signal.SIGSTOP)
        completed = finished(process, timeout=60)
    assert completed.returncode == 75
    assert re.search(
        r"mpiadv: error on rank 0: rank 2 on \S+, which trains, has not answered for 3 s: go on "
        r"with --resume",
        completed.stderr,
    )
    _require_last_step_saved(run)
    assert _gone_on_with(run) == alone


def test_attackers_of_a_silent_trainer_leave_it_to_the_lead(tmp_path: Path) -> None:
    """Theirs may be the longer wait: the lead may have been busy when the trainer fell silent."""
    run = tmp_path / "run"
    words = words_of(run, **SLOW, training__trainers=2, deadline_seconds=2)
    with launched(words, ranks=4) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step"):
            assert process.poll() is None
        os.kill(pids_of(process)[2], signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(pids_of(process)[0], signal.SIGSTOP)  # hears nothing meanwhile
        time.sleep(2.0)
        os.kill(pids_of(process)[0], signal.SIGCONT)
        completed = finished(process, timeout=60)
    assert completed.returncode == 75
    assert "rank 2 on " in completed.stderr and ", which trains, has not" in completed.stderr
    _require_last_step_saved(run)


def _trainers(run: Path) -> list[str]:
    import h5py

    with h5py.File(run / "log.h5", "r", locking=False) as log:
        return str(log.attrs["trainers"]).split(",")


def test_flipped_bit_ends_the_run_naming_its_host(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flips = {"model__name": "bad_parts:flips_a_bit", "model__arguments": "{rank: 2, call: 30}"}
    words = words_of(run, **{**SLOW, **flips}, training__trainers=4)
    with started_mpirun(
        ["python", "run_on_hosts.py", "0123", *words], ranks=4, cwd=HERE
    ) as process:
        completed = finished(process, timeout=60)
    assert completed.returncode == 1
    assert re.search(
        r"mpiadv: error on rank 0: after step \d+ the parameters on rank 2 on host2 are not those "
        r"on rank 0 on host0, as they were after step \d+: memory or processor may be broken",
        completed.stderr,
    )
    assert completed.stderr.count("mpiadv: error") == 1
    assert len(train_rows(run)) < SLOW["training__num_steps"]


def test_loss_that_is_not_a_number_is_told_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    nan = {
        "model__name": "bad_parts:faulty",
        "model__arguments": "{fault: nan, rank: 1, training: true}",
    }
    words = words_of(run, **{**SLOW, **nan}, training__trainers=2)
    completed = launch(words, ranks=2)
    assert completed.returncode == 1
    assert completed.stderr.count("the training loss is nan at step") == 1
    assert b"diverged" in read_table(run / "log.h5", "events")["kind"]


def test_request_to_stop_that_one_trainer_alone_hears_stops_all(tmp_path: Path, alone: str) -> None:
    run = tmp_path / "run"
    words = words_of(run, **SLOW, training__trainers=2)
    with launched(words, ranks=2) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step"):
            assert process.poll() is None
        os.kill(pids_of(process)[1], signal.SIGUSR1)
        completed = finished(process, timeout=60)
    assert completed.returncode == 75
    assert re.search(r"interrupted at step \d+, checkpoint saved", completed.stdout)
    assert _gone_on_with(run) == alone


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"training__trainers": 3}, "training.trainers"),
        (
            {"training__trainers": 2, "training__tickets_per_step": 1},
            "training.trainers=2 cannot share out the 1 ticket of a training step: use "
            "training.trainers<=1 or training.tickets_per_step>=2",
        ),
        (
            {"training__trainers": 4},
            "training.trainers=4 are more than there are ranks, 1: use training.trainers<=1, or "
            "start 4 ranks or more",
        ),
    ],
)
def test_trainers_that_cannot_be_are_refused(
    overrides: dict[str, object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refusal:
        train_alone(words_of(tmp_path / "run", **{**SLOW, **overrides}))
    assert told in str(refusal.value)
    assert not (tmp_path / "run").exists()
