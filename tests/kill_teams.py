"""Kills ranks of runs with several trainers at random instants; compares how the runs end.

    python tests/kill_teams.py --kills 100

Eight ranks (`--hosts 0123`: four) take themselves to be on four hosts: two trainers, with a team of
two hosts each, of which one is led by an attacker. A start loses one attacker, a leader, both
leaders at once or one shortly after the other, a whole host, or a trainer, while it starts, trains
or evaluates. One that loses attackers alone has to end; one that loses a trainer has to say "resume
me", and goes on, perhaps with other numbers of trainers and ranks. Whenever a run is done it has to
have the bits of one that nothing disturbed; none may hang, or leave a process behind.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launching import hash_of, launch, words_of
from mpi_runner import HERE, finished, pids_in_session, pids_of, started_mpirun

from mpiadv.contract.teams import Layout, place_teams

NUM_STEPS = 120
DEADLINE_SECONDS = 240.0
"""For one start; one that takes longer hangs. A rank that dies while MPI itself starts holds up the
others for two minutes."""

MOST_STARTS = 30
"""Of a run."""

WEIGHTS = {
    "an attacker": 0.2,
    "a leader": 0.2,
    "both leaders at once": 0.3,
    "a host without a trainer": 0.1,
    "a host with a trainer": 0.1,
    "the lead": 0.05,
    "the other trainer": 0.05,
}
"""How often who is killed."""


def victims_of(hosts: str) -> dict[str, list[list[int]]]:
    """Whom that may be, by rank."""
    teams = place_teams(hosts, 2, Layout.HOSTS)
    trainers = [team[0] for team in teams]
    by_host = {host: [r for r, its in enumerate(hosts) if its == host] for host in hosts}
    others = [ranks for ranks in by_host.values() if ranks[0] not in trainers]
    return {
        "an attacker": [[rank] for rank in range(len(hosts)) if rank not in trainers],
        "a leader": [ranks[:1] for ranks in others],
        "both leaders at once": [[ranks[0] for ranks in others]],
        "a host without a trainer": others,
        "a host with a trainer": [by_host[hosts[rank]] for rank in trainers],
        "the lead": [trainers[:1]],
        "the other trainer": [trainers[1:]],
    }


TRAINERS = ("a host with a trainer", "the lead", "the other trainer")
"""Those without whom the job cannot go on."""

PAUSES = (0.0, 0.0, 0.02)
"""Seconds between the deaths of a start: also of a second one while the first is dealt with."""

PHASES = {"start": 0.1, "training": 0.75, "evaluation": 0.15}

SETTINGS = {
    "model__name": "bad_parts:slow",
    "model__arguments": "{milliseconds: 5}",
    "training__num_steps": NUM_STEPS,
    "training__tickets_per_step": 4,
    "checkpoint__every_steps": 15,
    "evaluation__num_steps": 20,
}
TEAMS = ((1, 1), (1, 3), (2, 3), (4, 4))
"""Trainers and ranks that a run without a trainer may go on with."""


@dataclass(kw_only=True)
class Report:
    """What happened: kills by victim and by phase, how starts ended, what was gone on with."""

    num_kills: int = 0
    """Ranks that were killed."""
    victims: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    num_runs: int = 0


def kill_teams(*, num_kills: int, seed: int, hosts: str, folder: Path) -> Report:
    """Kill and compare; raises AssertionError where the promises are not kept."""
    alone = folder / "alone"
    assert launch(words_of(alone, **SETTINGS), ranks=1).returncode == 0
    chance, report = random.Random(seed), Report()
    while report.num_kills < num_kills:
        run = folder / f"run-{report.num_runs}"
        for _ in range(MOST_STARTS):
            code = _start(run, hosts, chance, report, more=report.num_kills < num_kills)
            if code != 75:
                break
        assert code == 0, f"{run} ended with code {code}"
        assert hash_of(run) == hash_of(alone), f"{run} ended with other bits"
        report.num_runs += 1
        shutil.rmtree(run)
        print(f"{report.num_runs} runs, {report.num_kills} kills", flush=True)
    return report


def _start(run: Path, hosts: str, chance: random.Random, report: Report, *, more: bool) -> int:
    """One start, or resumption, of a run; kills unless there are enough; how it ended."""
    is_begun = (run / "checkpoints").exists()
    if not more or (is_begun and chance.random() < 0.15):
        trainers, ranks = chance.choice(TEAMS)
        words = [*words_of(run, **SETTINGS), f"training.trainers={trainers}", "--resume"]
        return launch(words, ranks=ranks, timeout=DEADLINE_SECONDS).returncode
    words = [*words_of(run, **SETTINGS), "training.trainers=2", "--resume"]
    with started_mpirun(
        ["python", "run_on_hosts.py", hosts, *words],
        ranks=len(hosts),
        options=["--with-ft", "ulfm"],
        cwd=HERE,
    ) as process:
        name, phase = _kill(process, run, victims_of(hosts), chance, report)
        completed = finished(process, timeout=DEADLINE_SECONDS)
        _require_all_gone(process)
    code = completed.returncode
    if code == 0 and not (run / "DONE").exists():
        code = 75  # mpirun returns 0 whatever died, where it tolerates that
    report.codes[code] += 1
    told = f"{name or 'nobody'} was killed: {code}\n{completed.stdout}{completed.stderr}"
    assert code in (0, 75), told
    # One that dies while MPI itself starts, or teams are made, takes the job with it.
    assert code == 0 or phase == "start" or name in TRAINERS, told
    return code


def _kill(
    process: subprocess.Popen[str],
    run: Path,
    victims: dict[str, list[list[int]]],
    chance: random.Random,
    report: Report,
) -> tuple[str, str]:
    """Who was killed, empty for nobody, and in which phase."""
    (phase,) = chance.choices(list(PHASES), list(PHASES.values()))
    (name,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    chosen = chance.choice(victims[name])
    _await_phase(process, run, phase, chance)
    killed = 0
    if process.poll() is None:
        killed = _kill_all(pids_of(process), chosen, chance.choice(PAUSES))
    if killed:
        report.num_kills += killed
        report.victims[name] += 1
        report.phases[phase] += 1
        return name, phase
    return "", phase


def _await_phase(
    process: subprocess.Popen[str], run: Path, phase: str, chance: random.Random
) -> None:
    """Until a moment in the phase."""
    if phase == "start":
        time.sleep(chance.uniform(2.0, 7.0))  # MPI itself is through with its own start then
        return
    began = time.time()
    while process.poll() is None and _changed(run / "log.h5") < began:
        time.sleep(0.02)
    if phase == "training":
        time.sleep(chance.uniform(0.0, 5.0))
        return
    while process.poll() is None and _changed(run / "model.pt") < began:
        time.sleep(0.005)


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _kill_all(pids: dict[int, int], victims: Sequence[int], pause: float) -> int:
    """How many of them were there still."""
    hit = 0
    for victim in victims:
        with suppress(KeyError, ProcessLookupError):
            os.kill(pids[victim], signal.SIGKILL)
            hit += 1
            time.sleep(pause)
    return hit


def _require_all_gone(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 5.0
    while pids_in_session(process.pid):
        assert time.monotonic() < deadline, "a process outlives its job"
        time.sleep(0.05)


def main() -> None:
    """The command line: prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hosts", default="00112233", help="a character for each rank")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mpiadv-kills-") as folder:
        report = kill_teams(
            num_kills=given.kills, seed=given.seed, hosts=given.hosts, folder=Path(folder)
        )
    for what, counts in (("victims", report.victims), ("phases", report.phases)):
        print(f"{what}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    print(f"exit codes of starts: {dict(report.codes)}")
    print(f"finished runs: {report.num_runs}, all with the bits of an undisturbed run")
    print(f"kills: {report.num_kills}; seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
