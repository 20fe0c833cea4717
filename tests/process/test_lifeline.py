"""What ends with whoever started it, and what room there is for ranks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpiadv.process import room
from mpiadv.process.errors import UserError
from mpiadv.process.lifeline import STARTER, with_starter

STARTED = """
import signal, sys, time
from mpiadv.process import lifeline
lifeline.LOOK_SECONDS, lifeline.GRACE_SECONDS = 0.05, 0.5
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lifeline.end_with_the_starter()
print("watches", flush=True)
time.sleep(60)
"""

STARTER_PROGRAM = """
import os, subprocess, sys, time
from mpiadv.process.lifeline import with_starter
with subprocess.Popen(sys.argv[1:], env=with_starter(os.environ), close_fds=False):
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("manner", "code"), [("willing", -15), ("deaf", 75)], ids=["asked_first", "then_at_once"]
)
def test_process_ends_when_the_one_that_started_it_is_killed(manner: str, code: int) -> None:
    reported, end = os.pipe()
    wrapper = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STARTED!r}, {manner!r}])
os.write({end}, str(child.wait()).encode())
"""
    line = [sys.executable, "-c", STARTER_PROGRAM, sys.executable, "-c", wrapper]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, pass_fds=[end]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watches\n"
        process.kill()
    os.close(end)
    assert os.read(reported, 10).decode() == str(code)
    os.close(reported)


def test_rank_ends_with_its_parent_that_is_killed() -> None:
    program = STARTED.replace("starter()", "starter(and_with_parent=True)")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}, 'x'])"
    env = {name: value for name, value in os.environ.items() if name != STARTER}
    line = [sys.executable, "-c", parent]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watches\n"
        process.kill()
        assert process.stdout.read() == ""  # at its end: nobody holds it any more


@pytest.mark.parametrize(
    "starter",
    [
        pytest.param("", id="nobody"),
        pytest.param("elsewhere 1 2", id="on_another_host"),
        pytest.param(f"{os.uname().nodename} 1 1", id="another_process_of_that_number"),
    ],
)
def test_only_a_starter_that_is_seen_is_watched(starter: str) -> None:
    program = STARTED.replace("time.sleep(60)", "import threading; print(threading.active_count())")
    completed = subprocess.run(
        [sys.executable, "-c", program, "willing"],
        env={**os.environ, STARTER: starter},
        capture_output=True,
        text=True,
    )
    assert completed.stdout == "watches\n1\n"


def test_starter_is_told_by_host_number_and_time() -> None:
    host, number, began = with_starter({})[STARTER].split()
    assert (host, int(number)) == (os.uname().nodename, os.getpid())
    ticks = os.sysconf("SC_CLK_TCK")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime - int(began) / ticks < time.process_time() + 24 * 3600


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of two cores and 2 GiB."""
    monkeypatch.setattr(room, "memory_bytes", lambda: 2 * 2**30)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)


CROWDS = {
    "more_than_memory_holds": (9, {}, "launch: -n 9: the 2 GiB of memory here hold at most 8"),
    "more_than_memory_of_hosts_holds": (
        17,
        {"SLURM_JOB_NUM_NODES": "2"},
        "launch: -n 17: the 2 GiB of memory here hold at most 8 ranks, and 2 hosts 16",
    ),
}


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("ranks", "environ", "line"), [pytest.param(*case, id=name) for name, case in CROWDS.items()]
)
def test_more_ranks_than_memory_holds_are_refused(
    ranks: int, environ: dict[str, str], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        room.require_room(ranks, environ)


@pytest.mark.usefixtures("machine")
def test_cluster_counts_what_its_hosts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    room.require_room(100000, {"PBS_JOBID": "1"})
    assert capsys.readouterr().err == ""


def test_many_ranks_on_a_core_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    room.require_room(4, {})
    assert capsys.readouterr().err == ""
    room.require_room(5, {})
    assert capsys.readouterr().err == "warning: 5 ranks on 1 core: they will wait for each other\n"
