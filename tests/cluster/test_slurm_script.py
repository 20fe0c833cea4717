"""What a batch script does, without Slurm: its own text by bash, `mpiadv job` with stand-ins."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from launching import HERE
from mpi_runner import REPOSITORY, finished, started

from mpiadv.cluster import job
from mpiadv.cluster.job import FRUITLESS_STARTS, MAX_RESTARTS, work_of
from mpiadv.cluster.slurm import job_of, num_tasks, without_job
from mpiadv.cluster.submission import ACTIVATE, render
from mpiadv.command_lines import submit
from mpiadv.command_lines.job import read
from mpiadv.commands import alone
from mpiadv.process.errors import UserError
from mpiadv.process.programs import python_module

InJob = Callable[..., int]

SCRIPTS = REPOSITORY / "slurm"

PROJECTS = ("configs/mnist.yaml", "--name=mnist", "--gpus=4")

TASK_2_OF_4 = {
    "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_NTASKS_PER_NODE": "8",
}  # fmt: skip

COMMANDS = {
    "train": ({}, ["job", "configs/mnist.yaml"]),
    "requeue": ({}, ["job", "--chain", str(SCRIPTS / "requeue.sbatch"), "configs/mnist.yaml"]),
    "array_study": (
        TASK_2_OF_4,
        ["job", "study", "power", "--preset", "small", "--share", "2/4", "--jobs", "8"],
    ),
}


def do(words: Sequence[str]) -> int:
    """What `mpiadv job` does."""
    asked = read(words)
    assert asked is not None
    return alone.job(asked)


@pytest.fixture
def in_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InJob]:
    """Runs `mpiadv job` in this process, as in job 17, with a line of bash as its work."""
    _stand_in(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(body: str, *options: str, folder: Path | None = Path("run"), **environ: str) -> int:
        for name, text in {**_environ(tmp_path), **environ}.items():
            monkeypatch.setenv(name, text)
        work = job.Work(command=("bash", "-c", body), folder=folder)
        monkeypatch.setattr(job, "work_of", lambda words, environ: work)
        return do(options)

    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("name", "is_chain"), [("train", False), ("requeue", True)])
def test_script_of_the_project_is_what_submit_writes(name: str, is_chain: bool) -> None:
    asked = submit.read([*PROJECTS, *(["--chain"] if is_chain else [])])
    assert asked is not None
    assert (SCRIPTS / f"{name}.sbatch").read_text() == render(asked, ACTIVATE)


@pytest.mark.parametrize("name", COMMANDS)
def test_script_becomes_one_command(tmp_path: Path, name: str) -> None:
    environ, words = COMMANDS[name]
    programs = tmp_path / "mpiadv/.venv/bin"
    programs.mkdir(parents=True)
    _program(programs, "mpiadv", 'printf "%s\\n" "$@" > words; exit 75')
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    given = {**_environ(tmp_path), "HOME": str(tmp_path), **environ}
    script = ["bash", str(SCRIPTS / f"{name}.sbatch")]
    # Its exit code is the script's, and signals to the script are its own.
    assert subprocess.run(script, cwd=tmp_path, env=given).returncode == 75
    assert (tmp_path / "words").read_text().splitlines() == words


FINISH = "touch run/DONE; exit 0"
ADVANCE = "touch run/checkpoints/checkpoint-000000007.pt; exit 137"
RESTARTED_OFTEN = {"SLURM_RESTART_COUNT": str(MAX_RESTARTS)}

ENDS = {
    "finished": (FINISH, {}, 0, 0, False),
    "finished_after_many_fruitless_starts": (FINISH, {}, FRUITLESS_STARTS, 0, False),
    "no_error_and_no_marker": ("exit 0", {}, 0, 75, True),
    "failed": ("exit 1", {}, 0, 1, False),
    "bad_input": ("exit 2", {}, 0, 2, False),
    "interrupted": ("exit 75", {}, 0, 75, True),
    "a_rank_was_killed": ("exit 137", {}, 0, 75, True),
    "killed_itself": ("kill -9 $$", {}, 0, 75, True),
    "fruitless_for_the_last_time": ("exit 75", {}, FRUITLESS_STARTS - 1, 1, False),
    "fruitless_for_the_last_time_but_one": ("exit 75", {}, FRUITLESS_STARTS - 2, 75, True),
    "further_after_fruitless_starts": (ADVANCE, {}, FRUITLESS_STARTS - 1, 75, True),
    "restarted_often": (ADVANCE, RESTARTED_OFTEN, 0, 75, True),
}


@pytest.mark.parametrize(
    ("body", "environ", "fruitless", "code", "requeued"),
    [pytest.param(*case, id=name) for name, case in ENDS.items()],
)
def test_job_is_requeued_exactly_when_another_start_would_help(
    tmp_path: Path, in_job: InJob, body: str, environ: dict[str, str], fruitless: int, code: int,
    requeued: bool,
) -> None:  # fmt: skip
    if fruitless:
        (tmp_path / "run" / "fruitless_starts").write_text(f"{fruitless}\n")
    assert in_job(body, **environ) == code
    assert _asked(tmp_path) == (["scontrol requeue 17"] if requeued else [])
    if code == 0:
        assert not (tmp_path / "run" / "fruitless_starts").exists()


STUDY_ENDS = {
    "done": ("exit 0", {}, 0, False),
    "some_runs_failed": ("exit 1", {}, 1, False),
    "interrupted": ("exit 75", {}, 75, True),
    "restarted_too_often": ("exit 75", RESTARTED_OFTEN, 1, False),
}


@pytest.mark.parametrize(
    ("body", "environ", "code", "requeued"),
    [pytest.param(*case, id=name) for name, case in STUDY_ENDS.items()],
)
def test_task_of_an_array_is_requeued_alone_until_its_study_ends_with_code_0(
    tmp_path: Path, in_job: InJob, body: str, environ: dict[str, str], code: int, requeued: bool
) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", **environ}
    assert in_job(body, folder=None, **array) == code
    assert _asked(tmp_path) == (["scontrol requeue 17_3"] if requeued else [])


SLEEP_UNTIL_TOLD = "trap 'kill $!; exit 75' {}; sleep 30 & touch ready; wait"

SIGNALS = {
    "warning": (signal.SIGUSR1, "USR1", ["scontrol requeue 17"]),
    # Whether the job comes back is Slurm's to say: who cancels it does not want it to.
    "the_end": (signal.SIGTERM, "TERM", []),
}


@pytest.mark.parametrize(
    ("number", "name", "asked"), [pytest.param(*case, id=name) for name, case in SIGNALS.items()]
)
def test_signal_reaches_the_work_and_the_job_comes_back_after_a_warning(
    tmp_path: Path, number: signal.Signals, name: str, asked: list[str]
) -> None:
    process = _start(tmp_path, SLEEP_UNTIL_TOLD.format(name))
    _send_when_ready(tmp_path, process, number)
    assert process.wait(timeout=20) == 75
    assert _asked(tmp_path) == asked


def test_rank_that_dies_of_the_warning_while_it_starts_is_no_failure(tmp_path: Path) -> None:
    process = _start(tmp_path, "trap 'kill $!; exit 1' USR1; sleep 30 & touch ready; wait")
    _send_when_ready(tmp_path, process, signal.SIGUSR1)
    assert process.wait(timeout=20) == 75
    assert _asked(tmp_path) == ["scontrol requeue 17"]


def test_warning_while_the_job_is_imported_starts_nothing_and_requeues(tmp_path: Path) -> None:
    _stand_in(tmp_path)
    paused = ["paused_start", "mpiadv.cluster.job", "mpiadv.cli"]
    line = [sys.executable, "-m", *paused, "job", "seed=1"]
    tasks = {"SLURM_TASKS_PER_NODE": "1", "PYTHONPATH": f"{REPOSITORY}:{HERE}"}
    with started(line, cwd=tmp_path, env={**_environ(tmp_path), **tasks}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGUSR1)
        completed = finished(process, timeout=60)
    assert (completed.returncode, completed.stderr) == (75, "")
    assert _asked(tmp_path) == ["scontrol requeue 17"]
    assert not list(tmp_path.rglob("log.h5"))


def test_finished_run_is_not_started_again(tmp_path: Path, in_job: InJob) -> None:
    (tmp_path / "run" / "DONE").touch()
    assert in_job("touch started", "--chain", "script") == 0
    assert not (tmp_path / "started").exists()
    assert _asked(tmp_path) == []


def test_refused_requeue_is_told_with_what_to_do(
    tmp_path: Path, in_job: InJob, capsys: pytest.CaptureFixture[str]
) -> None:
    _program(tmp_path, "scontrol", 'echo "Job is not requeueable" >&2; exit 1')
    assert in_job("exit 75") == 75
    assert capsys.readouterr().err == (
        "mpiadv: error: cannot requeue job 17: Job is not requeueable: submit it again to go on, "
        "and if jobs may not requeue here, as slurm/requeue.sbatch does\n"
    )


CHAIN_ENDS = {
    "interrupted": ("exit 75", 75, []),
    "finished": (FINISH, 0, ["scancel 18"]),
    "failed": ("exit 1", 1, ["scancel 18"]),
}


@pytest.mark.parametrize(
    ("body", "code", "asked"), [pytest.param(*case, id=name) for name, case in CHAIN_ENDS.items()]
)
def test_chain_submits_its_next_job_first_and_takes_it_back_when_there_is_nothing_left(
    tmp_path: Path, in_job: InJob, body: str, code: int, asked: list[str]
) -> None:
    (tmp_path / "script").write_text("#!/bin/bash\necho me\n")
    assert in_job(f"cp asked before; {body}", "--chain", "script") == code
    first = "sbatch --parsable --dependency=afterany:17"
    assert (tmp_path / "before").read_text() == f"{first}\n"
    assert _asked(tmp_path) == [first, *asked]
    assert (tmp_path / "submitted").read_text() == "#!/bin/bash\necho me\n"
    # What is this job's own must not be taken for the next one's.
    assert "SLURM_JOB_ID" not in (tmp_path / "environ").read_text()


def test_run_starts_on_all_tasks_and_goes_on_with_what_is_there() -> None:
    work = work_of(["seed=1", "output=runs/x"], {"SLURM_TASKS_PER_NODE": "4(x2),1"})
    assert work.folder == Path("runs/x")
    launch = ["launch", "-n", "9", "seed=1", "output=runs/x", "--resume"]
    assert list(work.command) == [*python_module("mpiadv.cli"), *launch]


@pytest.mark.parametrize("words", [["--fault-tolerant", "seed=1"], ["seed=1", "--fault-tolerant"]])
def test_job_may_go_on_without_lost_attackers(
    in_job: InJob, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def told(words: list[str], environ: dict[str, str]) -> job.Work:
        raise UserError(" ".join(work_of(words, {"SLURM_TASKS_PER_NODE": "2"}).command))

    monkeypatch.setattr(job, "work_of", told)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(UserError, match=r"launch -n 2 seed=1 --fault-tolerant --resume$"):
        do(words)


TASKS = {"one_node": ("4", 4), "alike": ("2(x3)", 6), "unlike": ("4(x2),3,1(x2)", 13)}


@pytest.mark.parametrize(
    ("told", "number"), [pytest.param(*case, id=name) for name, case in TASKS.items()]
)
def test_tasks_are_counted_on_all_nodes(told: str, number: int) -> None:
    assert num_tasks({"SLURM_TASKS_PER_NODE": told}) == number


@pytest.mark.parametrize("environ", [{}, {"SLURM_TASKS_PER_NODE": "many"}], ids=["none", "words"])
def test_unknown_number_of_tasks_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(UserError, match="expected as in 4"):
        num_tasks(environ)


def test_outside_of_slurm_there_is_no_job() -> None:
    with pytest.raises(UserError, match="this is no Slurm job"):
        job_of({"HOME": "/root"})


def test_next_job_finds_the_cluster_and_nothing_of_this_job() -> None:
    environ = {"SLURM_CONF": "/etc/a", "SLURM_RESTART_COUNT": "3", "SBATCH_ACCOUNT": "b", "A": "c"}
    assert without_job(environ) == {"SLURM_CONF": "/etc/a", "SBATCH_ACCOUNT": "b", "A": "c"}


PROGRAM = """
import sys
from pathlib import Path
from mpiadv import cli
from mpiadv.process.programs import python_module
from mpiadv.cluster import job
work = job.Work(command=("bash", "-c", sys.argv[1]), folder=Path("run"))
job.work_of = lambda words, environ: work
sys.exit(cli.main(["job"]))
"""


def _start(folder: Path, body: str) -> subprocess.Popen[str]:
    """`mpiadv job` in job 17, whose work is `body`, a line of bash."""
    _stand_in(folder)
    line = [sys.executable, "-c", PROGRAM, body]
    return subprocess.Popen(line, cwd=folder, env=_environ(folder), text=True)


def _stand_in(folder: Path) -> None:
    """Programs in the place of Slurm's, which write down what they were asked."""
    (folder / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
    ask = 'echo "$(basename "$0") $@" >> asked'
    _program(folder, "scontrol", ask)
    _program(folder, "scancel", ask)
    _program(folder, "sbatch", f"{ask}; cat > submitted; env > environ; echo 18")


def _environ(folder: Path) -> dict[str, str]:
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **path, "SLURM_JOB_ID": "17"}


def _program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


def _asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def _send_when_ready(folder: Path, job: subprocess.Popen[str], number: signal.Signals) -> None:
    deadline = time.monotonic() + 20
    while not (folder / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(number)
