"""Leaders of hosts that are killed or stopped in training: the others go on with the same bits.

All ranks are on this machine, and take themselves to be on hosts of their own.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from launching import hash_alone, hash_of, launched, train_rows, words_of
from mpi_runner import finished, pids_of

from mpiadv.runlog import read_table

pytestmark = [pytest.mark.usefixtures("needs_mpirun"), pytest.mark.long]


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


def await_losses(process: subprocess.Popen[str], run: Path, number: int) -> int:
    """Wait until so many ranks are lost; the training step of the last loss."""
    while len(losses := losses_of(run)) < number:
        assert process.poll() is None
        time.sleep(0.05)
    return max(step for step, _ in losses.values())


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


KILLED_STEPS, KILLED_AFTER, KILLED_MILLISECONDS = 300, 40, 40


@pytest.fixture(scope="module")
def hash_of_killed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash that runs end with whose leaders are killed."""
    settings = slow_on(0, KILLED_STEPS, milliseconds=KILLED_MILLISECONDS)
    return hash_of_quick(tmp_path_factory.mktemp("alone") / "run", settings)


NUM_RANKS = 6
KILLED = {
    "of_all_other_hosts_then_a_successor": (2, [[2, 4], [3]]),
    "with_its_successor": (3, [[3, 4]]),
}
"""How many ranks there are on each host, and which of them die at once, and then."""


@pytest.mark.parametrize(("ranks_per_host", "killed"), KILLED.values(), ids=KILLED)
def test_leader_that_is_killed_in_training_costs_no_bits(
    tmp_path: Path, hash_of_killed: str, ranks_per_host: int, killed: Sequence[Sequence[int]]
) -> None:
    run = tmp_path / "run"
    settings = slow_on(ranks_per_host, KILLED_STEPS, milliseconds=KILLED_MILLISECONDS)
    words = [*words_of(run, **settings, deadline_seconds=60), "--fault-tolerant"]
    lost, last_loss, left = set[int](), 0, list[tuple[int, set[int]]]()
    with launched(words, ranks=NUM_RANKS) as process:
        for victims in killed:
            await_step(process, run, last_loss + KILLED_AFTER)
            pids = pids_of(process)
            for rank in victims:
                os.kill(pids[rank], signal.SIGKILL)
            lost |= set(victims)
            last_loss = await_losses(process, run, len(lost))
            left.append((last_loss, set(range(1, NUM_RANKS)) - lost))
        completed = finished(process, timeout=240)
        assert pids_of(process) == {}
    assert completed.returncode == 0, completed.stdout + completed.stderr
    losses = losses_of(run)
    assert set(losses) == lost
    for rank, (_, text) in losses.items():
        assert re.match(rf"rank {rank} on \S+ died: ", text)
    assert all(ranks <= crafters_after(run, step) for step, ranks in left)
    assert hash_of(run) == hash_of_killed
