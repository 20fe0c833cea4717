"""One start of a job's work. Imports next to nothing: it listens before the rest is loaded."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from mpiadv.process.exit_codes import EXIT_RESUME_ME
from mpiadv.process.lifeline import with_starter


@dataclass(kw_only=True)
class Attempt:
    """One start of the work: what Slurm has asked of it meanwhile, and how it ended.

    Attributes:
        is_warned: SIGUSR1 came: the time limit or preemption is near.
        is_ended: SIGTERM came: Slurm ends the job, and decides itself what becomes of it.
        code: the exit code; None before its end.
    """

    is_warned: bool = False
    is_ended: bool = False
    code: int | None = None
    _process: subprocess.Popen[bytes] | None = None
    _unsent: deque[int] = field(default_factory=deque)

    def listen(self) -> None:
        """From now on signals are noted and passed on."""
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)

    def run(self, command: Sequence[str]) -> int:
        """Start `command`, wait for its end, and return its exit code as a shell would."""
        if self.is_warned or self.is_ended:
            return EXIT_RESUME_ME
        self._process = subprocess.Popen(
            command, env=with_starter(os.environ), stdin=subprocess.DEVNULL
        )
        self._pass_on()
        code = self._process.wait()
        self.code = code if code >= 0 else 128 - code
        return self.code

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_warned |= number == signal.SIGUSR1
        self.is_ended |= number == signal.SIGTERM
        self._unsent.append(number)
        self._pass_on()

    def _pass_on(self) -> None:
        """Send each signal once, also those that came while the process was started."""
        if self._process is not None:
            with suppress(IndexError):  # when the last is taken by a signal in between
                while True:
                    self._process.send_signal(self._unsent.popleft())
