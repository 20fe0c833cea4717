"""Several programs at a time, and how they are asked to stop. Knows nothing of what they do."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mpiadv.process.interruption import Interruption
from mpiadv.process.lifeline import with_starter

POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run.

    Attributes:
        name: what to call it.
        command: its words.
        slots: how many of the slots it takes; more than there are means all.
        output: file for all that it says; None: it says it on our own terminal.
    """

    name: str
    command: tuple[str, ...]
    slots: int = 1
    output: Path | None = None


class _Running:
    """The processes of the programs that run."""

    def __init__(self) -> None:
        self._processes: dict[Program, tuple[subprocess.Popen[bytes], float]] = {}
        self._asked = False

    def __bool__(self) -> bool:
        return bool(self._processes)

    @property
    def slots(self) -> int:
        """How many slots they take."""
        return sum(program.slots for program in self._processes)

    def start(self, program: Program) -> None:
        """Start a program; it shares our process group, and reads nothing."""
        with ExitStack() as stack:
            output = stack.enter_context(program.output.open("ab")) if program.output else None
            process = subprocess.Popen(
                program.command, env=with_starter(os.environ), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT if output else None,
            )  # fmt: skip
        self._processes[program] = process, time.monotonic()

    def ended(self) -> Iterable[tuple[Program, int, float]]:
        """Jobs that have ended since the last call, with exit code and seconds."""
        for program, (process, began) in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[program]
                yield program, code, time.monotonic() - began

    def ask_to_stop(self) -> None:
        """Ask each once, with SIGUSR1: training runs write a checkpoint and end."""
        if not self._asked:
            self._asked = True
            for process, _ in self._processes.values():
                process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Ask them to stop, and wait until they have."""
        self.ask_to_stop()
        for process, _ in self._processes.values():
            process.wait()


def run_programs(
    programs: Sequence[Program],
    *,
    slots: int,
    interruption: Interruption,
    on_start: Callable[[Program], None] = lambda program: None,
    on_end: Callable[[Program, int, float], None] = lambda program, code, seconds: None,
) -> None:
    """Run the programs in order, as many at a time as there are slots for.

    After an interruption no program starts any more. However this ends, none is left behind: those
    that still run are asked to stop, and waited for.

    Args:
        on_end: told the exit code, negative for a signal, and the seconds it took.
    """
    waiting = list(programs)
    running = _Running()
    try:
        while running or (waiting and not interruption.requested):
            while _may_start(waiting, running, slots) and not interruption.requested:
                on_start(waiting[0])
                running.start(waiting.pop(0))
            if interruption.requested:
                running.ask_to_stop()
            time.sleep(POLL_SECONDS)
            for program, code, seconds in running.ended():
                on_end(program, code, seconds)
    finally:
        running.stop()


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _may_start(waiting: Sequence[Program], running: _Running, slots: int) -> bool:
    if not waiting:
        return False
    return not running or running.slots + waiting[0].slots <= slots
