"""A real Slurm of two nodes on this machine, for tests: in a folder of its own, on its own ports.

Needs Debian's packages `slurmctld slurmd slurm-client munge`. Where they are not installed the test
is skipped, unless MPIADV_REQUIRE_SLURM is set, as in CI where they could be installed.
"""

import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NODES = ("n1", "n2")

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# A requeued job waits until its old credentials have expired. Partition `urgent` preempts.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/attempts
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
KillWait=5
SlurmdTimeout=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=normal Nodes=n1,n2 Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=9 PreemptMode=OFF State=UP
"""


@dataclass
class Cluster:
    """A Slurm. `folder` holds its configuration, state and what its daemons say."""

    folder: Path
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which Slurm's commands mean this Slurm."""
        ours = {key: text for key, text in os.environ.items() if not key.startswith("SLURM_")}
        return {**ours, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def ask(self, *command: str, cwd: Path | None = None) -> str:
        """What a command prints; it must succeed."""
        completed = subprocess.run(
            command, env=self.environ, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert completed.returncode == 0, f"{command}: {completed.stdout}{completed.stderr}"
        return completed.stdout

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` tells."""
        return _pairs(self.ask("scontrol", "--oneliner", "show", "job", number))

    def ended_starts(self, number: str) -> list[str]:
        """The state in which each start of a job ended, as Slurm recorded it."""
        path = self.folder / "attempts"
        rows = map(_pairs, path.read_text().splitlines() if path.exists() else [])
        return [row["JobState"] for row in rows if row["JobId"] == number]

    def job_processes(self) -> dict[int, str]:
        """The processes of all jobs on all nodes, with their command lines."""
        return {pid: _words_of(pid) for pid in self._with("SLURM_JOB_ID")}

    def wait_until(self, holds: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: it does not within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self._told()}"
            time.sleep(0.2)

    def start(self) -> None:
        """Start everything, and wait until both nodes take jobs."""
        files = [f"--{name}={self.folder}/munge.{name}" for name in ("socket", "key-file")]
        files += [f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")]
        self._start("munged", "munged", "--foreground", "--force", *files)
        self.wait_until((self.folder / "munge.socket").exists, "munge listens", seconds=20)
        self._start("slurmctld", "slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        for name in NODES:
            self.wait_for_node(name, "idle")

    def start_node(self, name: str) -> None:
        """Start a node."""
        self._start(name, "slurmd", "-D", "-N", name)

    def wait_for_node(self, name: str, state: str) -> None:
        """Wait until a node is in a state, as `sinfo` tells it."""
        self.wait_until(lambda: self._state(name) == state, f"{name} is {state}", seconds=40)

    def kill_node(self, name: str) -> None:
        """Kill -9 a node's daemon and all that runs there, with no word to anybody."""
        self._daemons.pop(name)
        self._kill(lambda: self._with("SLURMD_NODENAME", name))

    def stop(self) -> None:
        """End everything, and leave nothing behind."""
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=5)
        self._kill(lambda: self._with("SLURM_CONF"))
        for daemon in self._daemons.values():
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, *command: str) -> None:
        # Slurm's own processes on a node shall be known as such, too.
        environ = {**self.environ, "SLURMD_NODENAME": name}
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _state(self, node: str) -> str:
        line = ("sinfo", "--noheader", "--partition=normal", f"--nodes={node}", "--format=%t")
        completed = subprocess.run(
            line, env=self.environ, capture_output=True, text=True, timeout=60
        )
        return completed.stdout.strip()

    def _with(self, name: str, value: str | None = None) -> list[int]:
        """The processes of this Slurm that have such an environment."""
        conf = str(self.folder / "slurm.conf")
        environs = {pid: _environ_of(pid) for pid in _pids()}
        return [
            pid
            for pid, environ in environs.items()
            if environ.get("SLURM_CONF") == conf
            and name in environ
            and value in (None, environ[name])
        ]

    def _kill(self, pids: Callable[[], list[int]]) -> None:
        deadline = time.monotonic() + 10
        while (found := pids()) and time.monotonic() < deadline:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _told(self) -> str:
        """The end of all that the daemons have said, for a test that fails."""
        said = [f"{path.name}:\n{path.read_text()[-1500:]}" for path in self.folder.glob("*.out")]
        return "\n".join(said)


@contextmanager
def slurm() -> Iterator[Cluster]:
    """A Slurm that runs within the block; skips the test where there is none."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        _skip(f"Slurm is not installed: there is no {', '.join(missing)}")
    # The paths of sockets must be short, and pytest's are not.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="mpiadv-slurm-", dir="/tmp")))
    try:
        _configure(cluster.folder)
        try:
            cluster.start()
        except (AssertionError, OSError) as error:
            _skip(f"Slurm does not start: {error}")
        yield cluster
    finally:
        cluster.stop()


def _skip(reason: str) -> None:
    if "MPIADV_REQUIRE_SLURM" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def _configure(folder: Path) -> None:
    folder.chmod(0o755)  # munge wants its socket to be within everybody's reach
    for name in ("state", *NODES):
        (folder / name).mkdir()
    key = folder / "munge.key-file"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    text = _CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        user=pwd.getpwuid(os.geteuid()).pw_name,
        folder=folder,
        ports=_free_ports(3),
    )
    (folder / "slurm.conf").write_text(text)


def _free_ports(count: int) -> list[int]:
    """Ports that the system gives to nobody who asks for any: the daemons take theirs later."""
    drawn = random.SystemRandom().sample(range(15000, 32000), 100 * count)
    return list(itertools.islice(filter(_is_free, drawn), count))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def _pairs(text: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", text))


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environ_of(pid: int) -> dict[str, str]:
    """A process's environment; empty where it has ended, or is not ours to look at."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: text for name, _, text in pairs}


def _words_of(pid: int) -> str:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")
    except OSError:
        return ""
