"""Runs a command under `mpirun` with a deadline. Knows no test and no pytest item.

Where there is no `mpirun` the test is skipped, unless MPIADV_REQUIRE_MPIRUN is set, as in CI.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from mpiadv.cluster.launcher import Launcher, find_launcher
from mpiadv.process.errors import UserError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent


class HungError(Exception):
    """A command was still running at its deadline; the text names it and shows its output."""


def mpirun(
    command: Sequence[str],
    *,
    ranks: int,
    timeout: float,
    mca: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` on `ranks` ranks, each with one thread, and return its code and output.

    A command that starts with `python` runs this Python. `mca` are Open MPI's parameters, such as
    `{"btl": "self,tcp"}`, `options` further words for `mpirun`, `prefix` words before it, `env` is
    added to the environment.

    Raises:
        HungError: not finished after `timeout` seconds; everything it started has been killed.
    """
    with started_mpirun(
        command, ranks=ranks, mca=mca, options=options, prefix=prefix, env=env, cwd=cwd
    ) as process:
        return finished(process, timeout=timeout)


@contextmanager
def started_mpirun(
    command: Sequence[str],
    *,
    ranks: int,
    mca: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """As `mpirun`, but while it runs: for tests that send signals. Kills what is left at the end.

    Signals sent to the process reach `mpirun`; `pids_of` tells the ranks'.
    """
    launcher = launcher_or_skip()
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    line = launcher.command(command, ranks=ranks, environ=os.environ)
    more = [word for key, value in (mca or {}).items() for word in ("--mca", key, value)]
    words = [*prefix, *line[:1], *more, *options, *line[1:]]
    with tempfile.TemporaryDirectory(prefix="mpirun-", ignore_cleanup_errors=True) as room:
        is_root = os.geteuid() == 0
        given = launcher.environment(_environment(env), is_root=is_root, room=Path(room))
        with started(words, env=given, cwd=cwd) as process:
            yield process


@contextmanager
def started(
    line: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, all of which is killed at the end."""
    process = subprocess.Popen(
        line,
        env=_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _kill_session(process)
        for stream in (process.stdout, process.stderr):
            _close(stream)
        process.wait()


def finished(process: subprocess.Popen[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for `process` and return its code and output, which is printed, too, if it failed.

    Raises:
        HungError: as `mpirun`.
    """
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise hung(process, timeout) from None
    if process.returncode:  # an assertion that fails shows no more than the ends of a text
        print(stdout, stderr, sep="", flush=True)
    return subprocess.CompletedProcess(_words(process), process.returncode, stdout, stderr)


def hung(process: subprocess.Popen[str], seconds: float) -> HungError:
    """The error that `process` was not finished after so many seconds; it is killed."""
    _kill_session(process)
    stdout, stderr = process.communicate()
    words = " ".join(shlex.quote(str(word)) for word in _words(process))
    return HungError(f"hung: not finished after {seconds:g} s: {words}\n{stdout}{stderr}")


def pids_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank to process id, for the ranks that `process`, a `started_mpirun`, runs now."""
    pids = {}
    for pid in pids_in_session(process.pid):
        rank = rank_of(pid)
        if rank is not None:
            pids[rank] = pid
    return pids


def kill_now(process: subprocess.Popen[str]) -> None:
    """Kill -9 a `started` process and all that it has started, with no word of warning."""
    deadline = time.monotonic() + 10
    while (pids := pids_in_session(process.pid)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def launcher_or_skip() -> Launcher:
    """The `mpirun` of this environment; skips the test where there is none."""
    try:
        return find_launcher()
    except UserError as error:
        if "MPIADV_REQUIRE_MPIRUN" in os.environ:
            raise
        pytest.skip(str(error))


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    # The working folder of a test is not the repository's.
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    # More ranks than cores, each with several threads, make every test slow.
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()


def _words(process: subprocess.Popen[str]) -> list[str]:
    assert isinstance(process.args, list)
    return [str(word) for word in process.args]


def _kill_session(process: subprocess.Popen[str]) -> None:
    """End all that is left of a session: mpirun gives every rank a process group of its own."""
    if process.poll() is None:
        process.terminate()  # mpirun then removes its temporary folder
        _wait_for_none(process.pid, seconds=2)
    kill_now(process)


def _wait_for_none(session: int, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while pids_in_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)


_NUM_THREADS = 13
"""Which of the fields of /proc/PID/stat after the session tells the number of threads."""


def pids_in_session(session: int) -> list[int]:
    """The processes of a session that have not ended, to their last thread."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which may hold anything: state, parent, group, session, ...
            state, _, _, of, *more = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Files are open, and locked, for as long as a thread is left.
        if int(of) == session and (state != "Z" or int(more[_NUM_THREADS]) > 1):
            pids.append(int(folder.name))
    return pids


def rank_of(pid: int) -> int | None:
    """The rank that a process is under an `mpirun`, None where it is none or has ended."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for entry in environ:
        name, _, value = entry.partition(b"=")
        if name in (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK"):
            return int(value)
    return None
