"""Starts the program under `mpirun` on this machine or in the cluster's allocation. Knows no MPI.

Before, it reads what is to be trained, as starting ranks takes long.

It owns what goes on while it runs: its environment, which signal asks for a checkpoint, what of
its output is passed on, and which exit code is the job's.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TextIO

from mpiadv.cluster.launcher import find_launcher
from mpiadv.cluster.repetition import pieces, without_repetition
from mpiadv.command_lines.launch import Launch
from mpiadv.command_lines.tables import TRAIN
from mpiadv.process.errors import UserError, tell_error
from mpiadv.process.exit_codes import EXIT_CODE_FILE, EXIT_DONE, EXIT_RESUME_ME, NO_EXIT_CODE
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.lifeline import hear_of_the_parents_death, with_starter
from mpiadv.process.programs import python_module
from mpiadv.process.room import require_room
from mpiadv.session.display import TERMINAL_WIDTH
from mpiadv.settings import read_words

PROGRAMS = {"evaluate": "mpiadv.commands.evaluate", "emulate": "mpiadv.emulation.rank"}
"""First words that start another program than training. A file of that name is `./evaluate`."""

ROOM_BYTES = 2**20
"""Of the folder for temporary files."""

_EXIT_CODE = "exit-code"


def require_configuration(wanted: Launch) -> None:
    """Refuse here, in a moment, what all ranks would refuse after they have loaded torch.

    Raises:
        UserError: it is to train, and its configuration is wrong.
    """
    if wanted.words[:1] and wanted.words[0] in PROGRAMS:
        return
    asked = TRAIN.read(wanted.words)
    if asked is not None:
        read_words(asked.words, trust_code=asked.trust_code)


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
    words = list(wanted.words)
    module = PROGRAMS.get(words[0]) if words else None
    environ = _with_terminal_width(os.environ)
    command = launcher.command(
        [*python_module(module or "mpiadv.run"), *words[module is not None :]],
        ranks=wanted.ranks,
        environ=environ,
        fault_tolerant=wanted.is_fault_tolerant,
    )
    with _room() as room:
        environ = launcher.environment(environ, is_root=os.geteuid() == 0, room=room)
        code, told = _run_and_hear_rank_0(command, environ, relay, room / _EXIT_CODE)
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


def _with_terminal_width(environ: Mapping[str, str]) -> dict[str, str]:
    if not sys.stdout.isatty():
        return dict(environ)
    return {**environ, TERMINAL_WIDTH: str(shutil.get_terminal_size().columns)}


def _run_and_hear_rank_0(
    command: Sequence[str], environ: Mapping[str, str], relay: SignalRelay, file: Path
) -> tuple[int, int | None]:
    """The exit code of `mpirun`, and rank 0's own; None where that has not come to its end."""
    # Where a file could be made: an mpirun that is not told where tries no other folder.
    usable = {"TMPDIR": tempfile.gettempdir()} if "TMPDIR" in environ else {}
    code = _run(command, {**environ, **usable, EXIT_CODE_FILE: str(file)}, relay)
    told = file.read_bytes()
    return code, None if told == NO_EXIT_CODE else int(told)


@contextmanager
def _room() -> Iterator[Path]:
    """A new folder, with rank 0's exit code that is not told yet, and enough room for `mpirun`."""
    with ExitStack() as stack:
        try:
            # What is left of a killed mpirun may go on for a moment, and put more there.
            made = tempfile.TemporaryDirectory(prefix="mpiadv-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            file = folder / _EXIT_CODE
            # As much as mpirun itself needs there, of which it says in many lines that it lacks.
            file.write_bytes(bytes(ROOM_BYTES))
            # Its block on the disk is taken now: at the end there may be none.
            file.write_bytes(NO_EXIT_CODE)
        except OSError as error:
            raise UserError(
                f"cannot make a temporary file for launch ({error.strerror}): free space, or name "
                "a folder for such files in TMPDIR"
            ) from None
        yield folder


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
        preexec_fn=lambda: hear_of_the_parents_death(signal.SIGUSR1),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        relay.reach(process.send_signal)
        output = threading.Thread(target=_pass_on, args=(process.stdout, sys.stdout), daemon=True)
        output.start()
        for text in without_repetition(pieces(process.stderr), lambda: bool(relay.received)):
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
        output.join()
        code = process.wait()
    return code if code >= 0 else 128 - code


def _pass_on(source: IO[bytes], goal: TextIO) -> None:
    while chunk := os.read(source.fileno(), 65536):
        goal.buffer.write(chunk)
        goal.buffer.flush()
