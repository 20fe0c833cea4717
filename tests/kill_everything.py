"""Kills trainers and whole runs at random instants; checks what is on disk and how it goes on.

    python tests/kill_everything.py --kills 30

After every kill -9, of all processes at once or of the trainer alone, upon which the others have to
end by themselves, fault-tolerant or not, the log must hold all rows up to the newest checkpoint,
without a gap, and that checkpoint must load. Then the run goes on; whenever it finishes, its model
must have the bits of a run that nothing disturbed, and the next run begins.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from launching import hash_of, launch, launched, train_rows, words_of
from mpi_runner import kill_now, pids_in_session, pids_of

from mpiadv.storage.checkpoint import load_newest

NUM_STEPS, CHECKPOINT_STEPS = 400, 10
DEADLINE_SECONDS = 180.0

SETTINGS = {
    "model__name": "bad_parts:slow",
    "model__arguments": "{milliseconds: 3}",
    "training__num_steps": NUM_STEPS,
    "checkpoint__every_steps": CHECKPOINT_STEPS,
    "evaluation__num_steps": 30,
    "log__flush_seconds": 0.02,
}

PHASES = {"start": (0.3, ""), "training": (0.5, "step "), "evaluation": (0.2, "evaluating")}
"""How often a phase is to be hit, and the beginning of the line that opens it."""


VICTIMS = {"the whole job": 0.5, "the trainer": 0.25, "the fault-tolerant trainer": 0.25}
"""What is killed, how often."""

END_SECONDS = 150.0
"""From the end of the trainer to that of the job: others may be loading torch still, or be held up
in MPI's own start for two minutes."""


@dataclass(frozen=True, kw_only=True)
class Killing:
    """How often to kill what, and where."""

    num_kills: int
    ranks: int
    seed: int
    folder: Path


@dataclass(kw_only=True)
class Report:
    """What happened: kills by phase, finished runs, checkpoints that were gone on from.

    `num_cut_rows` counts rows of the log beyond the checkpoint, which are trained again.
    """

    kills: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    num_finished: int = 0
    num_resumed: int = 0
    num_cut_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Whom to kill, and when: so many seconds after a phase has begun."""

    victim: str
    phase: str
    seconds: float


def kill_everything(killing: Killing) -> Report:
    """Kill and go on; raises AssertionError where the promises are not kept."""
    undisturbed = killing.folder / "undisturbed"
    began = time.monotonic()
    assert launch(words_of(undisturbed, **SETTINGS), ranks=1).returncode == 0
    whole_seconds = time.monotonic() - began
    start_seconds = whole_seconds - _trained_seconds(undisturbed)
    chance, report = random.Random(killing.seed), Report()
    while sum(report.kills.values()) < killing.num_kills:
        run = killing.folder / f"run-{report.num_finished}"
        aim = _aim(chance, start_seconds)
        if _start_and_kill(run, killing.ranks, aim):
            report.kills[aim.phase] += 1
            report.victims[aim.victim] += 1
            _check_remains(run, report)
        else:
            _check_finished(run, undisturbed, report)
    completed = launch([*words_of(run, **SETTINGS), "--resume"], ranks=killing.ranks)
    assert completed.returncode == 0, completed.stderr
    _check_finished(run, undisturbed, report)
    return report


def _aim(chance: random.Random, start_seconds: float) -> Aim:
    (phase,) = chance.choices(list(PHASES), [weight for weight, _ in PHASES.values()])
    longest = {"start": start_seconds, "training": 4.0, "evaluation": 1.0}[phase]
    (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
    return Aim(victim=victim, phase=phase, seconds=chance.uniform(0.0, longest))


def _trained_seconds(run: Path) -> float:
    clock = train_rows(run)["wall_clock"]
    return float(clock[-1] - clock[0])


def _start_and_kill(run: Path, ranks: int, aim: Aim) -> bool:
    """Start or go on, and kill all processes; False when the run finished before that."""
    words = [*words_of(run, **SETTINGS), "--resume"]
    words += ["--fault-tolerant"] if "fault-tolerant" in aim.victim else []
    # Open MPI keeps files in the temporary folder, which a killed one leaves behind.
    with launched(words, ranks=ranks, env={"TMPDIR": str(run.parent)}) as process:
        has_begun = _watch_for(process, PHASES[aim.phase][1])
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not has_begun.wait(0.01) and process.poll() is None:
            assert time.monotonic() < deadline, "neither began nor ended"
        time.sleep(aim.seconds)
        is_running = process.poll() is None
        trainer = pids_of(process).get(0)
        if aim.victim == "the whole job" or trainer is None:
            kill_now(process)
            return is_running
        os.kill(trainer, signal.SIGKILL)
        return _ended_without_result(process)


def _ended_without_result(process: subprocess.Popen[str]) -> bool:
    """Wait for a job that lost its trainer; False when it had finished before."""
    deadline = time.monotonic() + END_SECONDS
    while process.poll() is None:
        assert time.monotonic() < deadline, "the job outlives its trainer"
        time.sleep(0.01)
    time.sleep(0.5)
    assert pids_in_session(process.pid) == [], "a process outlives its trainer"
    return process.returncode != 0


def _watch_for(process: subprocess.Popen[str], beginning: str) -> threading.Event:
    """An event that is set when a line with this beginning is printed; at once for none."""
    event = threading.Event()
    if not beginning:
        event.set()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(beginning):
                event.set()

    threading.Thread(target=read, daemon=True).start()
    return event


def _check_remains(run: Path, report: Report) -> None:
    """What a kill left on disk: whole, and enough to go on."""
    checkpoint = load_newest(run / "checkpoints")
    step = checkpoint.step if checkpoint else 0
    assert step % CHECKPOINT_STEPS == 0, f"{run} has a checkpoint of step {step}"
    if checkpoint or (run / "log.h5").exists():
        rows = train_rows(run)
        assert rows["step"].tolist() == list(range(len(rows)))
        assert step <= len(rows) <= NUM_STEPS
        report.num_cut_rows += len(rows) - step
    report.num_resumed += checkpoint is not None


def _check_finished(run: Path, undisturbed: Path, report: Report) -> None:
    assert (run / "DONE").exists()
    assert train_rows(run)["step"].tolist() == list(range(NUM_STEPS))
    assert hash_of(run) == hash_of(undisturbed), f"{run} ended with other bits"
    report.num_finished += 1


def main() -> None:
    """The command line: prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mpiadv-kills-") as folder:
        report = kill_everything(
            Killing(num_kills=given.kills, ranks=given.ranks, seed=given.seed, folder=Path(folder))
        )
    by_phase = ", ".join(f"{count} in {phase}" for phase, count in report.kills.items())
    by_victim = ", ".join(f"{count} of {victim}" for victim, count in report.victims.items())
    print(f"kills: {sum(report.kills.values())} ({by_phase}; {by_victim})")
    print(f"damaged logs or checkpoints: 0; gone on from a checkpoint {report.num_resumed} times")
    print(f"rows beyond their checkpoint: {report.num_cut_rows}")
    print(f"finished runs: {report.num_finished}, all with the bits of an undisturbed run")
    print(f"seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
