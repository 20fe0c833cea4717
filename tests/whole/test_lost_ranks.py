"""Attackers that are lost or do not answer: the run goes on without them, with the same bits."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_attackers import TARGETS, Machines, kill_attackers
from launching import hash_alone, hash_of, launch, launched, words_of
from mpi_runner import HERE, finished, pids_of, started

from mpiadv.runlog import read_table

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]

SLOW = {
    "model__name": "bad_parts:slow",
    "model__arguments": "{milliseconds: 5}",
    "training__num_steps": 200,
    "checkpoint__every_steps": 100,
}
LONG = {**SLOW, "model__arguments": "{milliseconds: 40}", "training__num_steps": 625}
NEVER_WAITS = {"model__arguments": "{milliseconds: 0}"}
"""Which changes no bits."""
STOPPING = {
    "model__name": "bad_parts:faulty",
    "model__arguments": "{fault: stop, rank: 1, call: 30}",
    "training__num_steps": 300,
}


def _await_training(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step"):
        assert process.poll() is None


def test_attacker_that_does_not_answer_ends_the_job_with_a_checkpoint_to_go_on_from(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with launched(words_of(run, **SLOW, deadline_seconds=3), ranks=2) as process:
        _await_training(process)
        os.kill(pids_of(process)[1], signal.SIGSTOP)
        completed = finished(process, timeout=60)
        assert pids_of(process) == {}
    assert completed.returncode == 75
    assert re.fullmatch(
        r"mpiadv: error on rank 0: rank 1 on \S+ with (no ticket|tickets? \d[\d, ]*) has not "
        r"answered for 3 s: go on with --resume; with mpiadv launch --fault-tolerant the run would "
        r"have gone on without it\n",
        completed.stderr,
    )
    assert launch([*words_of(run, **SLOW), "--resume"], ranks=2).returncode == 0
    assert hash_of(run) == hash_alone(tmp_path / "alone", **SLOW | NEVER_WAITS)
    assert b"silent" in read_table(run / "log.h5", "events")["kind"]


def test_attacker_that_is_back_after_ten_deadlines_leaves_and_disturbs_nothing(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = [*words_of(run, **LONG, deadline_seconds=2, overdue_seconds=0.4), "--fault-tolerant"]
    with launched(words, ranks=3) as process:
        _await_training(process)
        stopped = pids_of(process)[2]
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(20.0)
        os.kill(stopped, signal.SIGCONT)
        completed = finished(process, timeout=120)
        assert pids_of(process) == {}
    assert completed.returncode == 0
    assert re.search(r"mpiadv: rank 2 on \S+ leaves: the trainer", completed.stderr)
    assert re.search(r"warning: step \d+: rank 2 on \S+ has had ticket", completed.stdout)
    assert hash_of(run) == hash_alone(tmp_path / "alone", **LONG | NEVER_WAITS)
    events = read_table(run / "log.h5", "events")
    lost = [event["text"].decode() for event in events if event["kind"] == b"lost"]
    # On a machine that is busy with much else another rank may have been silent as long.
    given_up = r"rank 2 on \S+ has not answered for 2 s and is given up: "
    assert any(re.match(given_up, text) for text in lost)


def test_attacker_that_stops_for_good_does_not_keep_the_job_from_ending(tmp_path: Path) -> None:
    settings = {**STOPPING, "deadline_seconds": 2}
    words = [*words_of(tmp_path / "run", **settings), "--fault-tolerant"]
    with launched(words, ranks=2) as process:
        completed = finished(process, timeout=120)
        assert pids_of(process) == {}
    assert (completed.returncode, completed.stderr) == (0, "")
    assert (tmp_path / "run" / "DONE").exists()


def test_job_that_lost_its_trainer_says_so_once_and_asks_to_be_resumed(tmp_path: Path) -> None:
    words = [*words_of(tmp_path / "run", **LONG), "--fault-tolerant"]
    with launched(words, ranks=3) as process:
        _await_training(process)
        os.kill(pids_of(process)[0], signal.SIGKILL)
        completed = finished(process, timeout=20)
        assert pids_of(process) == {}
    assert completed.returncode == 75
    assert re.fullmatch(
        r"mpiadv: error: the trainer( \(rank 0\S*.*\))? is gone: go on with --resume\n",
        completed.stderr,
    )


def test_killed_attackers_cost_no_bits(tmp_path: Path) -> None:
    losses = kill_attackers(
        num_kills=3,
        machines=Machines(ranks=3),
        seed=5,
        folder=tmp_path,
        target=TARGETS["small"],
    )
    assert losses.num_kills >= 3


HANGS_PARTING = """\
import sys
from mpiadv.loops.trainer import Trainer
from mpiadv.process.errors import SilentRankError
from mpiadv.run import main
def shut_down(trainer, reason):
    raise SilentRankError("rank 1 has not answered")
Trainer.shut_down = shut_down
sys.exit(main(sys.argv[1:]))
"""


def test_attacker_that_hangs_while_parting_costs_no_training(tmp_path: Path) -> None:
    words = words_of(tmp_path / "run", checkpoint__every_steps=0)
    line = [sys.executable, "-c", HANGS_PARTING, *words]
    with started(line, cwd=HERE) as process:
        completed = finished(process, timeout=120)
    assert completed.returncode == 75
    assert completed.stderr == "mpiadv: error on rank 0: rank 1 has not answered\n"
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-000000060.pt").exists()
