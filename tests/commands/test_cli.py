"""The command line's first word decides who gets the rest."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from mpi_runner import REPOSITORY

from mpiadv import cli
from mpiadv.command_lines.commands import require_no_misspelt
from mpiadv.commands import alone
from mpiadv.process.errors import UserError
from mpiadv.process.programs import python_module

ROUTES = {
    "nothing": ([], ("train", [])),
    "configuration": (["a.yaml", "seed=1"], ("train", ["a.yaml", "seed=1"])),
    "only_options": (["--print-config"], ("train", ["--print-config"])),
    "launch": (
        ["launch", "-n", "8", "a.yaml", "--resume"],
        ("launch", (8, ["a.yaml", "--resume"], False)),
    ),
    "launch_that_outlives_losses": (
        ["launch", "-n", "8", "a.yaml", "--fault-tolerant", "--resume"],
        ("launch", (8, ["a.yaml", "--resume"], True)),
    ),
    "launch_of_several_trainers": (
        ["launch", "-n", "8", "--trainers", "2", "a.yaml"],
        ("launch", (8, ["a.yaml", "training.trainers=2"], False)),
    ),
    "evaluation": (["evaluate", "runs/digits", "seed=1"], ("evaluate", ["runs/digits", "seed=1"])),
    "launch_the_default": (["launch", "-n", "2"], ("launch", (2, [], False))),
    "configuration_in_a_folder_called_launch": (["./launch"], ("train", ["./launch"])),
}


@pytest.mark.parametrize(
    ("argv", "call"), [pytest.param(*case, id=name) for name, case in ROUTES.items()]
)
def test_arguments_reach_their_program_and_its_exit_code_comes_back(
    calls: list[tuple[str, object]], argv: list[str], call: tuple[str, object]
) -> None:
    assert cli.main(argv) == 75
    assert calls == [call]


LONG = 300 * "L"


def test_name_that_is_too_long_for_a_file_is_no_command_and_no_configuration() -> None:
    require_no_misspelt([LONG])


@pytest.mark.parametrize("command", ["report", "watch"])
def test_name_that_is_too_long_for_a_file_is_one_line(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, LONG]) == 2
    assert capsys.readouterr().err.startswith(f"mpiadv: error: there is no log at {LONG}")


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "small", "plan.yaml", "exp-1"])
def test_name_of_a_configuration_is_no_misspelt_command(
    calls: list[tuple[str, object]], name: str
) -> None:
    assert cli.main([name]) == 75
    assert calls == [("train", [name])]


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ("~/a.yaml", "HOME/a.yaml"),
        ("~", "HOME"),
        ("--output=~/x", "--output=HOME/x"),
        ("seed=~", "seed=~"),
        ("a~b", "a~b"),
        ("~nobody-at-all/x", "~nobody-at-all/x"),
    ],
)
def test_home_stands_in_words_where_no_shell_has_put_it(
    calls: list[tuple[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: str,
    reached: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["evaluate", "x", given]) == 75
    assert calls == [("evaluate", ["x", reached.replace("HOME", str(tmp_path))])]


def test_home_is_found_where_the_environment_has_none(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    assert cli.main([]) == 75
    assert Path(os.environ["HOME"]).is_dir()


def test_existing_file_is_a_configuration_whatever_its_name(
    calls: list[tuple[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evalute").touch()
    assert cli.main(["evalute"]) == 75


def test_one_of_several_ranks_leaves_it_to_the_first_to_refuse(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert cli.main(["--resum"]) == 75


def test_users_error_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(argv: Sequence[str]) -> int:
        raise UserError("no such thing")

    monkeypatch.setitem(sys.modules, "mpiadv.commands.train", SimpleNamespace(main=refuse))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "mpiadv: error: no such thing\n"


def test_working_folder_that_was_deleted_is_one_line(
    calls: list[tuple[str, object]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert cli.main(["seed=1"]) == 2
    line = "mpiadv: error: the working folder was deleted: change to one that exists\n"
    assert capsys.readouterr().err == line


def test_ctrl_c_in_a_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(asked: Namespace) -> int:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(alone, "watch", watch)
    assert cli.main(["watch", "x"]) == 130
    assert capsys.readouterr().err == "mpiadv: stopped by Ctrl-C\n"


def test_ctrl_c_while_a_command_is_loaded_ends_it_in_silence(tmp_path: Path) -> None:
    """`difflib`, which the command line imports, stands for all that takes time to load."""
    (tmp_path / "difflib.py").write_text("print('loads', flush=True); import time; time.sleep(60)")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    line = [sys.executable, "-m", "mpiadv", "report", "x"]
    with subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loads\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGINT


HIDDEN = ("statistics", "difflib", "argparse", "dataclasses", "signal", "contextlib", "types")


def test_modules_of_pythons_own_are_not_looked_for_in_the_working_folder(tmp_path: Path) -> None:
    for name in HIDDEN:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder')\n")
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = ["submit", "--ranks=1", "--dry-run"]
    for line in (python_module("mpiadv.cli"), [sys.executable, "-m", "mpiadv"]):
        completed = subprocess.run(
            [*line, *words], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60
        )
        assert completed.stderr == ""
        assert completed.stdout.startswith("#!/bin/bash")
        # Python itself looks for these before it comes to any module of ours.
        for name in ("contextlib", "types"):
            (tmp_path / f"{name}.py").unlink(missing_ok=True)


def test_launcher_loads_neither_torch_nor_mpi() -> None:
    program = "import sys, mpiadv.cli; print({'torch', 'mpi4py', 'h5py'} & set(sys.modules))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert completed.stdout == "set()\n"
