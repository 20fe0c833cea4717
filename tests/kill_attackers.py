"""Kills attackers of fault-tolerant runs at random instants, and checks that nothing else is lost.

    python tests/kill_attackers.py --kills 100
    python tests/kill_attackers.py --kills 200 --model preact_resnet18 --ranks 6
    python tests/kill_attackers.py --kills 100 --ranks 6 --hosts 3
    python tests/kill_attackers.py --kills 100 --ranks 8 --hosts 4 --mbits 10000

Every run loses one attacker, two at once, two shortly after each other so that the second dies
while the first loss is dealt with, or all of them; while they start, train or evaluate. With
`--model preact_resnet18` it loses all in training, each at a moment of its own: batches of 512
images of 3 x 32 x 32, six megabytes each, are then often on their way, and versions of 45. In three
runs of ten no ranks share memory, in the others those of a host do. With `--hosts` the ranks are on
one machine, and take themselves to be on so many: leaders die, too. With `--mbits`, too, they are
on network namespaces with so fast a network between them, which takes root. Every run has to end,
with the bits of a run that nothing disturbed, and leave no process behind. A rank that dies while
MPI itself starts takes the job with it; then the run begins anew, and that is counted.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from launching import hash_of, launch, launched, train_rows, words_of
from mpi_runner import HERE, REPOSITORY, finished, pids_in_session, rank_of, started_mpirun

from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.runlog import read_table

NUM_STEPS = 300
DEADLINE_SECONDS = 240.0
"""For one start of a run; one that takes longer hangs."""

DELAY_SECONDS = 0.0001
"""One way, between hosts with a network of their own."""

WAYS = {"one": 0.4, "two at once": 0.2, "two in a row": 0.3, "all": 0.1}
"""How often a run loses its attackers in which way."""

PHASES = {"start": 0.15, "training": 0.7, "evaluation": 0.15}


Start = subprocess.Popen[str]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is trained while attackers are killed, and how."""

    settings: Mapping[str, object]
    ways: Mapping[str, float] = field(default_factory=lambda: WAYS)
    phases: Mapping[str, float] = field(default_factory=lambda: PHASES)
    training_seconds: float = 6.0
    """After the log's beginning, in which kills in training happen."""


TARGETS = {
    "small": Target(
        settings={
            "model__name": "bad_parts:slow",
            "model__arguments": "{milliseconds: 5, ranks_per_host: 0}",
            "training__num_steps": NUM_STEPS,
            "checkpoint__every_steps": 50,
            "evaluation__num_steps": 20,
        }
    ),
    "preact_resnet18": Target(
        settings={
            "model__name": "bad_parts:pooled_resnet",
            "model__arguments": "{ranks_per_host: 0}",
            "data__arguments": "{num_samples: 1024, shape: [3, 32, 32]}",
            "data__batch_size": 512,
            "attack__num_steps": 1,
            "training__num_steps": 30,
            "checkpoint__every_steps": 0,
            "evaluation__num_steps": 1,
            "evaluation__final_samples": 10,
        },
        ways={"each by itself": 1.0},
        phases={"training": 1.0},
        training_seconds=6.0,
    ),
}


@dataclass(kw_only=True)
class Losses:
    """What happened: kills by way and by phase, starts that ended without a result.

    `longest_pauses`: of each run the longest time from one training step to the next, in seconds.
    """

    ways: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    num_missed: int = 0
    num_begun_anew: int = 0
    num_by_messages: int = 0
    num_doubted: int = 0
    """Those of which something arrived that they had not sent."""
    longest_pauses: list[float] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.ways.values())


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What the ranks are on: this machine, or hosts with a network of their own.

    To start ranks on those, mpirun has words before it, options and an environment.
    """

    ranks: int
    prefix: Sequence[str] = ()
    options: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def start(self, words: Sequence[str], env: Mapping[str, str]) -> Iterator[Start]:
        """A fault-tolerant run."""
        if not self.prefix:
            with launched([*words, "--fault-tolerant"], ranks=self.ranks, env=env) as process:
                yield process
            return
        exported = (word for name in env for word in ("-x", name))
        with started_mpirun(
            ["python", "-m", "mpiadv.run", *words],
            ranks=self.ranks,
            options=["--with-ft", "ulfm", *self.options, *exported],
            prefix=self.prefix,
            env={**env, **self.env},
            cwd=HERE,
        ) as process:
            yield process


@contextmanager
def _in_namespaces(ranks: int, number: int, mbits: float) -> Iterator[Machines]:
    sys.path.append(str(REPOSITORY))
    from benchmarks.hosts import agent_environment, hosts, mpirun_options

    with hosts(number, delay_seconds=DELAY_SECONDS, bits_per_second=1e6 * mbits) as made:
        yield Machines(
            ranks=ranks,
            prefix=made[0].inside([]),
            options=mpirun_options(made, ranks // number),
            env=agent_environment(made),
        )


def kill_attackers(
    *, num_kills: int, machines: Machines, seed: int, folder: Path, target: Target
) -> Losses:
    """Kill and compare; raises AssertionError where the promises are not kept."""
    undisturbed = folder / "undisturbed"
    began = time.monotonic()
    assert launch(words_of(undisturbed, **target.settings), ranks=1).returncode == 0
    chance, losses = random.Random(seed), Losses()
    usual = time.monotonic() - began
    while losses.num_kills < num_kills:
        run = folder / f"run-{losses.num_runs}"
        code = _run_and_kill(run, machines, target, chance, usual, losses)
        if code == 75:
            losses.num_begun_anew += 1
            words = [*words_of(run, **target.settings), "--resume"]
            again = launch(words, ranks=machines.ranks, timeout=DEADLINE_SECONDS)
            assert again.returncode == 0
        else:
            assert code == 0, f"{run} ended with code {code}"
            pauses = np.diff(train_rows(run)["wall_clock"])
            losses.longest_pauses.append(float(pauses.max()))
        assert hash_of(run) == hash_of(undisturbed), f"{run} ended with other bits"
        losses.num_doubted += _num_doubted(run)
        losses.num_runs += 1
        shutil.rmtree(run)
    return losses


def _on_hosts(target: Target, ranks_per_host: int) -> Target:
    """The same with ranks that take themselves to be on several hosts: all have the same model."""
    told = f"ranks_per_host: {ranks_per_host}"
    arguments = str(target.settings["model__arguments"]).replace("ranks_per_host: 0", told)
    return replace(target, settings={**target.settings, "model__arguments": arguments})


def _num_doubted(run: Path) -> int:
    """Attackers of a run that were given up for what they sent, not for being silent or dead."""
    events = read_table(run / "log.h5", "events")
    told = [event["text"].decode() for event in events if event["kind"] == b"lost"]
    return sum(" is given up" in text and "has not answered" not in text for text in told)


def _run_and_kill(
    run: Path,
    machines: Machines,
    target: Target,
    chance: random.Random,
    usual: float,
    losses: Losses,
) -> int:
    """One run with its kills; returns the exit code."""
    by_messages = chance.random() < 0.3
    losses.num_by_messages += by_messages
    env = {"TMPDIR": str(run.parent), DISABLE_SHARING: str(int(by_messages))}
    with machines.start(words_of(run, **target.settings), env) as process:
        killer = _Killer(process, run, machines.ranks, target, chance, usual, losses)
        killer.start()
        completed = finished(process, timeout=DEADLINE_SECONDS)
        killer.join()
        time.sleep(0.5)
        assert pids_in_session(process.pid) == [], "a process was left behind"
        assert _ranks_of(run) == {}, "a rank was left behind"
    return completed.returncode


def _ranks_of(run: Path) -> Mapping[int, int]:
    """Rank to process id, of a run's ranks on all hosts."""
    pids = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            rank = rank_of(int(folder.name))
            if rank is not None and f"output={run}".encode() in words:
                pids[rank] = int(folder.name)
    return pids


class _Killer(threading.Thread):
    """Kills attackers of one run."""

    def __init__(
        self,
        process: Start,
        run: Path,
        ranks: int,
        target: Target,
        chance: random.Random,
        usual: float,
        losses: Losses,
    ) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._run = run
        self._chance = chance
        self._losses = losses
        self._target = target
        (self._way,) = chance.choices(list(target.ways), list(target.ways.values()))
        (self._phase,) = chance.choices(list(target.phases), list(target.phases.values()))
        self._usual = usual
        attackers = list(range(1, ranks))
        everybody = dict.fromkeys(("all", "each by itself"), len(attackers))
        self._victims = chance.sample(attackers, {"one": 1, **everybody}.get(self._way, 2))
        self._gaps = {
            "two in a row": 0.1,
            "each by itself": 2 * target.training_seconds / len(attackers),
        }

    def run(self) -> None:
        self._wait_for_phase()
        for victim in self._victims:
            time.sleep(self._chance.uniform(0.0, self._gaps.get(self._way, 0.0)))
            pid = _ranks_of(self._run).get(victim)
            with suppress(ProcessLookupError):
                if pid is None:
                    raise ProcessLookupError
                os.kill(pid, signal.SIGKILL)
                self._losses.ways[self._way] += 1
                self._losses.phases[self._phase] += 1
                continue
            self._losses.num_missed += 1

    def _wait_for_phase(self) -> None:
        """Sleep until the phase, and a random time of it."""
        while not _ranks_of(self._run) and self._process.poll() is None:
            time.sleep(0.02)
        if self._phase == "start":
            time.sleep(self._chance.uniform(0.0, 0.8 * self._usual))
            return
        log = self._run / "log.h5"
        while not log.exists() and self._process.poll() is None:
            time.sleep(0.02)
        model = log.with_name("model.pt")
        if self._phase == "training":
            if self._way != "each by itself":
                time.sleep(self._chance.uniform(0.0, self._target.training_seconds))
            return
        while not model.exists() and self._process.poll() is None:
            time.sleep(0.005)
        time.sleep(self._chance.uniform(0.0, 0.3))


def main() -> None:
    """The command line: prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=TARGETS, default="small")
    parser.add_argument("--hosts", type=int, default=1, help="that the ranks take to be there")
    parser.add_argument("--mbits", type=float, help="Mbit/s of a network of their own between them")
    given = parser.parse_args()
    began = time.monotonic()
    target, machines = TARGETS[given.model], Machines(ranks=given.ranks)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mpiadv-kills-")))
        if given.mbits is not None:
            network = _in_namespaces(given.ranks, given.hosts, given.mbits)
            machines = stack.enter_context(network)
        elif given.hosts > 1:
            target = _on_hosts(target, -(-given.ranks // given.hosts))
        losses = kill_attackers(
            num_kills=given.kills,
            machines=machines,
            seed=given.seed,
            folder=folder,
            target=target,
        )
    print(f"attackers killed: {losses.num_kills} in {losses.num_runs} runs of {given.ranks} ranks")
    print(f"  by way: {', '.join(f'{n} {way}' for way, n in losses.ways.items())}")
    print(f"  by phase: {', '.join(f'{n} in {phase}' for phase, n in losses.phases.items())}")
    print(f"  runs with versions as messages: {losses.num_by_messages}")
    print(f"  came too late, the run was over: {losses.num_missed}")
    print(f"  whose last message had not arrived, though it seemed so: {losses.num_doubted}")
    print(f"runs begun anew, since MPI was just starting: {losses.num_begun_anew}")
    pauses = losses.longest_pauses
    print(
        f"longest pause of training: {max(pauses):.2f} s (median of runs {np.median(pauses):.2f})"
    )
    print("runs that ended with other bits: 0; that hung: 0; processes left behind: 0")
    print(f"seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
