"""What runs a study's programs: how many at a time, how they are stopped, what failed."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from made_up_staleness import MadeUp, write_run
from made_up_study import finish_runs, open_study

from mpiadv.process.errors import UserError
from mpiadv.process.interruption import Interruption
from mpiadv.studies import runner
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program, run_programs
from mpiadv.studies.runner import Means, train
from mpiadv.studies.runs import Run
from mpiadv.studies.staleness_runs import State


def program(name: str, code: str, *, slots: int = 1, output: Path | None = None) -> Program:
    return Program(name=name, command=(sys.executable, "-c", code), slots=slots, output=output)


SLOTS = {
    "one_at_a_time": (1, [1, 1, 1], 1),
    "two_at_a_time": (2, [1, 1, 1, 1], 2),
    "several_ranks_count_as_several": (3, [2, 2, 2], 1),
    "more_than_there_are_runs_alone": (2, [9, 1, 9], 1),
}


@pytest.mark.parametrize(
    ("slots", "sizes", "most"), [pytest.param(*case, id=name) for name, case in SLOTS.items()]
)
def test_as_many_jobs_run_at_a_time_as_there_are_slots(
    slots: int, sizes: list[int], most: int
) -> None:
    running, peak, order = 0, 0, []

    def began(started: Program) -> None:
        nonlocal running, peak
        running, peak = running + 1, max(peak, running + 1)
        order.append(started.name)

    def ended(program: Program, code: int, seconds: float) -> None:
        nonlocal running
        assert code == 0
        running -= 1

    programs = [
        program(str(n), "import time; time.sleep(0.2)", slots=s) for n, s in enumerate(sizes)
    ]
    run_programs(programs, slots=slots, interruption=Interruption(), on_start=began, on_end=ended)
    assert (running, peak) == (0, most)
    assert order == [each.name for each in programs]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_asks_what_runs_to_stop_and_starts_nothing_more(
    number: signal.Signals, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    waits = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        f"import os; os.kill(os.getppid(), {int(number)})\n"
        "time.sleep(300)"
    )
    codes: dict[str, int] = {}
    with Interruption().listening() as interruption:
        run_programs(
            [program("waits", waits), program("never", "")], slots=1, interruption=interruption,
            on_end=lambda program, code, seconds: codes.update({program.name: code}),
        )  # fmt: skip
        assert interruption.requested
    assert ready.exists() and codes == {"waits": 75}


def test_no_job_is_left_behind_by_an_error(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    waits = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
    waits += "time.sleep(300)"
    fails = f"import os, time\nwhile not os.path.exists({str(pid)!r}): time.sleep(0.01)"

    def refuse(program: Program, code: int, seconds: float) -> None:
        raise UserError("refused")

    began = time.monotonic()
    with pytest.raises(UserError, match="refused"):
        run_programs([program("waits", waits), program("fails", fails)], slots=2,
                 interruption=Interruption(), on_end=refuse)  # fmt: skip
    assert time.monotonic() - began < 150
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def training_as(monkeypatch: pytest.MonkeyPatch, programs: dict[str, str]) -> list[str]:
    """Let runs be programs of a line; what the runner says."""

    def made_up(folder: StudyFolder, run: Run) -> Program:
        return program(run.name, programs[run.name], output=folder.path / f"runs/{run.name}.txt")

    monkeypatch.setattr(runner, "_training", made_up)
    return []


FAILS = "import sys; print('step 3'); print('mpiadv: error on rank 0: loss is nan'); sys.exit(1)"
REFUSES = "import sys; print('mpiadv: error: no such model: output=FOLDER'); sys.exit(2)"

KILLED = "import os, signal; print('step 3'); os.kill(os.getpid(), signal.SIGKILL)"


def means(said: list[str], share: tuple[int, int] = (1, 1)) -> Means:
    return Means(slots=1, share=share, interruption=Interruption(), say=said.append)


def test_run_that_fails_stops_no_other_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "power", "study.training_steps=[1,2,4,8]")
    said = training_as(monkeypatch, {"k1": FAILS, "k2": "", "k4": REFUSES, "k8": KILLED})
    failed = train(folder, means(said))
    assert failed == {name: tmp_path / f"runs/{name}.txt" for name in ("k1", "k4", "k8")}
    told = "\n".join(said)
    assert "k1 (1 of 4): failed" in told and "exit code 1: loss is nan" in told
    assert "k2 (2 of 4): finished" in told
    assert "k4 (3 of 4): failed" in told and "exit code 2: no such model" in told
    assert "k8 (4 of 4): failed" in told and "killed by signal 9" in told


def test_error_of_an_earlier_attempt_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "power", "study.training_steps=[1]")
    (tmp_path / "runs/k1.txt").write_text("mpiadv: error: the disk is full\n")
    said = training_as(monkeypatch, {"k1": "import sys; print('step 3'); sys.exit(1)"})
    train(folder, means(said))
    assert "exit code 1: step 3" in said[-1]


def test_run_that_diverged_is_a_result_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "staleness")
    first, *others = (run.name for run in folder.runs)
    write_run(folder, first, MadeUp(state=State.DIVERGED))
    said = training_as(monkeypatch, {name: "" for name in others})
    assert train(folder, means(said)) == {}
    assert said[0].endswith("diverged before")
    assert not any("started" in line and line.startswith(f"{first} ") for line in said)


def test_bad_input_of_the_first_run_is_that_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "power")
    said = training_as(monkeypatch, {"k1": REFUSES, "k4": ""})
    with pytest.raises(UserError, match="run k1: no such model: --output FOLDER"):
        train(folder, means(said))
    assert said == ["k1 (1 of 2): started"]


def test_finished_runs_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "power")
    finish_runs(folder)
    said = training_as(monkeypatch, {"k1": FAILS, "k4": FAILS})
    assert train(folder, means(said)) == {}
    assert said[0] == "k1 (1 of 2): done before, natural 96.00 %, PGD-40 80.00 %"


def test_shares_are_disjoint_and_together_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "power", "study.training_steps=[1,2,4,8,16]")
    programs = dict.fromkeys(("k1", "k2", "k4", "k8", "k16"), "")
    shares = []
    for number in (1, 2):
        said = training_as(monkeypatch, programs)
        train(folder, means(said, share=(number, 2)))
        shares.append({line.split()[0] for line in said})
    assert shares == [{"k1", "k4", "k16"}, {"k2", "k8"}]


def test_first_share_makes_all_runs_whose_speed_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_study(tmp_path, "headline")
    programs = {run.name: "" for run in folder.runs}
    shares = []
    for number in (1, 2):
        said = training_as(monkeypatch, programs)
        train(folder, means(said, share=(number, 2)))
        shares.append({line.split()[0] for line in said})
    assert shares == [set(programs), set()]


def test_run_of_several_ranks_goes_through_the_launcher(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power")
    run = Run(name="several", overrides={}, ranks=3, is_alone=True)
    planned = runner._training(folder, run)
    assert planned.command[1:6] == ("-m", "mpiadv.cli", "launch", "-n", "3")
    assert planned.command[-1] == "--resume"
    assert planned.slots > 1000
