"""Asks a process of its own to read a log of unknown state, and outlives whatever it does there.

That process ends itself where it makes no progress: a read of its answer comes to an end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mpiadv
from mpiadv.process.errors import UserError

SILENCE_SECONDS = 60
"""Without progress, until what reads the log is given up."""

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a job to end is sent to all of its processes, and says nothing about the log."""


class DamagedLogError(Exception):
    """A log that cannot be read; the text says why, as far as anybody can tell."""


class Trial:
    """A process that reads logs. It starts when it is asked first, and again after it ended.

    `silence_seconds` without progress end it.
    """

    def __init__(self, silence_seconds: int = SILENCE_SECONDS) -> None:
        self._silence_seconds = silence_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def require_readable(self, path: Path) -> None:
        """Read a log as its readers do.

        Raises:
            DamagedLogError: it cannot be read.
            OSError: there is none, or it may not be read.
        """
        self._ask({"path": str(path), "is_log": False, "cut": None})

    def cut_back(self, path: Path, cut: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have a log written anew: `cut` says how, see `runlog.cutting`.

        Returns the shape of its snapshots as `snapshot_shape`. Where the `step` is None and the log
        holds training steps, nothing is done: `rows` says how many.

        Raises:
            DamagedLogError: it cannot be read. It is as it was.
            UserError: it is sound, and does not fit.
            OSError: the disk is full, or similar. The log is as it was.
        """
        return self._ask({"path": str(path), "is_log": True, "cut": dict(cut)})

    def close(self) -> None:
        """End the process, until somebody asks again."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            answer = self._answer(json.dumps(request).encode() + b"\n")
        if "damaged" in answer:
            raise DamagedLogError(answer["damaged"])
        if "refused" in answer:
            raise UserError(answer["refused"])
        if "failed" in answer:
            number, text = answer["failed"]
            raise OSError(number or 0, text, request["path"])
        return answer

    def _answer(self, request: bytes) -> dict[str, Any]:
        process = self._process or _start(self._silence_seconds)
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        return {"damaged": f"what read it {_told(self._end(), self._silence_seconds)}"}

    def _end(self) -> int:
        """End the process, which has nothing to lose; its exit code, also where it ended before."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        process.communicate()
        return process.returncode


TRIAL = Trial()
"""For whoever reads logs now and then."""


def _start(silence_seconds: int) -> subprocess.Popen[bytes]:
    # Not the working folder first: it may hold a module that is called as one of Python's own.
    line = [sys.executable, "-P", "-m", "mpiadv.runlog.cutting", str(silence_seconds)]
    package = str(Path(mpiadv.__file__).parent.parent)
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, *filter(None, others)]),
        "OPENBLAS_NUM_THREADS": "1",
    }
    # A blocked signal stays blocked in a child: nothing that asks for an end can end a trial.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
    try:
        return subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _told(code: int, silence_seconds: int) -> str:
    if code == -signal.SIGALRM:
        return f"came to no end within {silence_seconds} s"
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
