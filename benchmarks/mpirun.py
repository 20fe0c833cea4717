"""Runs a program under `mpirun` for the benchmarks. Knows nothing of what it measures."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpiadv.cluster.launcher import find_launcher
from mpiadv.process.exit_codes import EXIT_DONE

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 600.0


def mpirun(
    program: Sequence[str],
    *,
    ranks: int,
    options: Sequence[str] = (),
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    ends_with: int = EXIT_DONE,
) -> None:
    """Run `python -m MODULE ...` on `ranks` ranks, one thread each; `options` are of `mpirun`.

    The words of `prefix` go before `mpirun`, `env` is added to its environment. `ends_with` is the
    exit code of a program that did what it should.

    Raises:
        UserError: there is no `mpirun`.
        RuntimeError: the program failed; what it said is on standard error.
        subprocess.TimeoutExpired: it took longer than `timeout_seconds`.
    """
    launcher = find_launcher()
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(env or {})}
    first, *rest = launcher.command(program, ranks=ranks, environ=environ)
    with tempfile.TemporaryDirectory(prefix="mpirun-", ignore_cleanup_errors=True) as room:
        completed = subprocess.run(
            [*prefix, first, *options, *rest],
            env=launcher.environment(environ, is_root=os.geteuid() == 0, room=Path(room)),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=timeout_seconds,
        )
    if completed.returncode != ends_with:
        raise RuntimeError(f"{program[2]} failed on {ranks} ranks: exit {completed.returncode}")
