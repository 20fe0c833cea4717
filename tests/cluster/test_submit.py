"""`mpiadv submit`: which batch script it hands in, what it says, what it refuses."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mpiadv import cli

SBATCH = '#!/bin/bash\necho "$@" > words; cat > submitted; {}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a configuration and a stand-in for sbatch that takes every job."""
    (tmp_path / "a.yaml").write_text("output: runs/a b\n")
    _sbatch(tmp_path, "echo '17;west'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def _sbatch(folder: Path, body: str) -> None:
    (folder / "sbatch").write_text(SBATCH.format(body))
    (folder / "sbatch").chmod(0o755)


def test_job_is_handed_in_and_its_log_and_run_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["submit", "a.yaml", "seed=3", "--gpus", "4", "--nodes", "2"]) == 0
    assert capsys.readouterr().out == (
        "job 17: 8 ranks on 2 nodes, trains runs/a b\n"
        "its place in the queue: squeue --jobs=17\n"
        "the run as it goes on:  mpiadv watch 'runs/a b'\n"
        "what it says:           tail -F a-b-17.log\n"
        "to end it:              scancel 17\n"
    )
    assert (folder / "words").read_text() == "--parsable\n"
    submitted = (folder / "submitted").read_text()
    assert "#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=4" in submitted
    assert "#SBATCH --job-name=a-b --output=a-b-%j.log" in submitted
    assert submitted.endswith("\nexec mpiadv job a.yaml seed=3\n")


def test_dry_run_shows_what_would_be_handed_in_and_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "a.yaml", "--ranks", "2"]
    assert cli.main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (folder / "words").exists()
    assert not (folder / "runs").exists()
    assert cli.main(words) == 0
    assert (folder / "submitted").read_text() == shown


LINES = {
    "gpus": (["--gpus", "2"], "#SBATCH --nodes=1 --ntasks-per-node=2 --gpus-per-node=2 --cpus-"),
    "several_ranks_on_a_gpu": (["--gpus", "1", "--ranks", "3"], "-node=3 --gpus-per-node=1 "),
    "cpus_alone": (
        ["--ranks", "3", "--cpus", "2"], "#SBATCH --nodes=1 --ntasks-per-node=3 --cpus-per-task=2\n"
    ),
    "time": (["--ranks=1", "--time", "1-12"], "#SBATCH --time=1-12\n"),
    "partition": (["--ranks=1", "--partition=gpu"], "\n#SBATCH --partition=gpu\n"),
    "account": (["--ranks=1", "--account=lab"], "\n#SBATCH --account=lab\n"),
    "any_other": (["--ranks=1", "--sbatch=--mem=4G"], "\n#SBATCH --mem=4G\n"),
    "warning": (["--ranks=1", "--warning", "300"], "#SBATCH --signal=B:USR1@300\n"),
    "requeue": (["--ranks=1"], "#SBATCH --open-mode=append --requeue\n"),
    "chain": (["--ranks=1", "--chain"], "#SBATCH --open-mode=append --no-requeue\n"),
    "log_of_a_chain": (["--ranks=1", "--chain", "--name=x"], "--job-name=x --output=x.log\n"),
    "fault_tolerant": (
        ["seed=1", "--ranks=2", "--fault-tolerant"], "exec mpiadv job --fault-tolerant seed=1\n"
    ),
    "fault_tolerant_chain": (
        ["--ranks=2", "--chain", "--fault-tolerant"], 'job --chain "$0" --fault-tolerant\n'
    ),
    "trainers": (
        ["--ranks=4", "--nodes=2", "--trainers=2", "training.tickets_per_step=2"],
        "exec mpiadv job training.tickets_per_step=2 training.trainers=2\n",
    ),
    "words_are_quoted": (["model.arguments={a: 1}", "--ranks=1"], "job 'model.arguments={a: 1}'\n"),
    "this_python": (["--ranks=1"], f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line"), [pytest.param(*case, id=name) for name, case in LINES.items()]
)
def test_option_is_in_the_script(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert cli.main(["submit", *words, "--dry-run"]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--gpus=2"], ["--ranks=2", "--chain"]], ids=" ".join)
def test_script_is_one_that_bash_reads(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert cli.main(["submit", *options, "name.of.none=1", "--dry-run"]) == 2
    assert cli.main(["submit", *options, "seed=1", "--partition=gpu", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    head = script.partition("\nexport PATH")[0]
    # Slurm reads no options after the first command.
    assert script.count("#SBATCH") == head.count("#SBATCH") == 6


REFUSALS = {
    "no_size": ([], "expected --gpus N, the GPUs of each node, or on CPUs alone --ranks N"),
    "no_gpu_and_no_rank": (["--gpus=0"], "expected --gpus N"),
    "no_number": (["--gpus=all"], "argument --gpus: all is no whole number"),
    "no_node": (["--nodes=0"], "argument --nodes: 0: expected at least 1"),
    "time": (["--ranks=1", "--time=4h"], "--time 4h: expected MINUTES, MM:SS, HH:MM:SS, DAYS-HH"),
    "time_of_many_parts": (["--ranks=1", "--time=1:2:3:4"], "--time 1:2:3:4: expected MINUTES"),
    "no_time_to_work": (["--ranks=1", "--time=3"], "expected more than 180 s"),
    "two_words": (["--ranks=1", "--partition=a b"], "'a b' is no single word"),
    "no_option": (["--ranks=1", "--sbatch=mem=4G"], "expected an option of sbatch, as --mem=64G"),
    "teams": (
        ["--ranks=4", "--nodes=3", "--trainers=2", "training.tickets_per_step=2"],
        "training.trainers=2 cannot share 3 hosts evenly: use training.trainers=1, or",
    ),
    "unknown_option": (["--rank=1"], "unrecognized arguments: --rank=1"),
    "unknown_setting": (["--ranks=1", "sed=1"], "unknown setting sed"),
    "no_file": (["--ranks=1", "b.yaml"], "cannot read configuration b.yaml"),
}


@pytest.mark.parametrize(
    ("words", "reason"), [pytest.param(*case, id=name) for name, case in REFUSALS.items()]
)
def test_bad_input_is_one_line_and_nothing_is_handed_in(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert cli.main(["submit", *words]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.startswith("mpiadv: error: ") and told.count("\n") == 1
    assert not (folder / "words").exists()


TIMES = {"30": 1800, "5:30": 330, "1:00:00": 3600, "1-0": 86400, "1-2:30": 95400, "0-0:0:200": 200}


@pytest.mark.parametrize(("limit", "seconds"), TIMES.items())
def test_time_limit_is_understood_as_slurm_does(
    folder: Path, capsys: pytest.CaptureFixture[str], limit: str, seconds: int
) -> None:
    words = ["submit", "--ranks=1", "--dry-run", f"--time={limit}"]
    assert cli.main([*words, f"--warning={seconds - 61}"]) == 0
    assert cli.main([*words, f"--warning={seconds - 60}"]) == 2
    assert f"expected more than {seconds} s" in capsys.readouterr().err


def test_finished_run_is_not_trained_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "runs" / "a b").mkdir(parents=True)
    (folder / "runs" / "a b" / "DONE").touch()
    assert cli.main(["submit", "a.yaml", "--ranks=1"]) == 2
    assert capsys.readouterr().err == (
        "mpiadv: error: runs/a b holds a finished run: choose another folder with output=FOLDER\n"
    )


def test_run_that_is_gone_on_with_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs/a b/checkpoints").mkdir(parents=True)
    (folder / "runs/a b/checkpoints/checkpoint-000000100.pt").touch()
    assert cli.main(["submit", "a.yaml", "--ranks=1"]) == 0
    assert capsys.readouterr().out.startswith("job 17: 1 rank on 1 node, goes on with runs/a b\n")


def test_what_slurm_refuses_is_told_in_its_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _sbatch(folder, "echo 'sbatch: error: invalid partition: gpu' >&2; exit 1")
    assert cli.main(["submit", "--ranks=1"]) == 2
    assert "submit: sbatch: error: invalid partition: gpu: " in capsys.readouterr().err


def test_without_slurm_the_script_can_still_be_seen(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder / "runs"))
    assert cli.main(["submit", "--ranks=1"]) == 2
    assert capsys.readouterr().err == (
        "mpiadv: error: submit: there is no sbatch on PATH: run this where the cluster takes jobs, "
        "or see the script with --dry-run\n"
    )
