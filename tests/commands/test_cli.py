"""The command line's first word decides who gets the rest."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from mpi_runner import REPOSITORY

from mpiadv import cli
from mpiadv.command_lines import evaluate
from mpiadv.command_lines.commands import require_no_misspelt
from mpiadv.command_lines.launch import Launch
from mpiadv.evaluation.plan import KINDS, PROTOCOLS
from mpiadv.process.errors import UserError
from mpiadv.process.interruption import SignalRelay
from mpiadv.process.programs import python_module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What the programs and the launcher were called with; all return 75."""
    seen: list[tuple[str, object]] = []

    def run(argv: Sequence[str]) -> int:
        seen.append(("run", list(argv)))
        return 75

    def launch(wanted: Launch, relay: SignalRelay) -> int:
        seen.append(("launch", (wanted.ranks, list(wanted.words), wanted.is_fault_tolerant)))
        return 75

    def evaluate(argv: Sequence[str]) -> int:
        seen.append(("evaluate", list(argv)))
        return 75

    monkeypatch.setitem(sys.modules, "mpiadv.run", SimpleNamespace(main=run))
    monkeypatch.setitem(sys.modules, "mpiadv.commands.evaluate", SimpleNamespace(main=evaluate))
    monkeypatch.setitem(sys.modules, "mpiadv.cluster.launch", SimpleNamespace(launch=launch))
    return seen


ROUTES = {
    "nothing": ([], ("run", [])),
    "configuration": (["a.yaml", "seed=1"], ("run", ["a.yaml", "seed=1"])),
    "only_options": (["--print-config"], ("run", ["--print-config"])),
    "launch": (
        ["launch", "-n", "8", "a.yaml", "--resume"],
        ("launch", (8, ["a.yaml", "--resume"], False)),
    ),
    "launch_that_outlives_losses": (
        ["launch", "-n", "8", "a.yaml", "--fault-tolerant", "--resume"],
        ("launch", (8, ["a.yaml", "--resume"], True)),
    ),
    "evaluation": (["evaluate", "runs/digits", "seed=1"], ("evaluate", ["runs/digits", "seed=1"])),
    "launch_the_default": (["launch", "-n", "2"], ("launch", (2, [], False))),
    "configuration_in_a_folder_called_launch": (["./launch"], ("run", ["./launch"])),
}


@pytest.mark.parametrize(
    ("argv", "call"), [pytest.param(*case, id=name) for name, case in ROUTES.items()]
)
def test_arguments_reach_their_program_and_its_exit_code_comes_back(
    calls: list[tuple[str, object]], argv: list[str], call: tuple[str, object]
) -> None:
    assert cli.main(argv) == 75
    assert calls == [call]


FIRST = "launch: expected the number of ranks first: mpiadv launch -n 4 CONFIG"
NUMBER = "launch: -n {}: expected a number of ranks, 1 or more: mpiadv launch -n 4 CONFIG"
ALONE = (
    "launch: {0} is no work for several ranks: say mpiadv {0} by itself; ranks train, or evaluate"
)
MEANT = "no command {}: did you mean mpiadv {}?"
UNKNOWN = "unrecognized arguments: {}: did you mean {}? See mpiadv --help"

REFUSED = {
    "launch": FIRST,
    "launch a.yaml": FIRST,
    "launch -n": FIRST,
    "launch -n4": FIRST,
    "launch --np 4": FIRST,
    **{
        f"launch -n {word}": NUMBER.format(word)
        for word in ("all", "-1", "0", "²", "1e3", 5000 * "9")
    },
    **{
        f"launch -n 2 {name} x": ALONE.format(name)
        for name in ("plan", "report", "watch", "study", "submit", "job", "launch")
    },
    "evalute runs/digits": MEANT.format("evalute", "evaluate"),
    "Evaluate runs/digits": MEANT.format("Evaluate", "evaluate"),
    "launhc -n 2": MEANT.format("launhc", "launch"),
    "trian a.yaml": MEANT.format("trian", "CONFIG, which trains"),
    "version": MEANT.format("version", "--version"),
    "launch -n 2 evalute": MEANT.format("evalute", "launch -n 2 evaluate"),
    "launch -n 2 train": MEANT.format("train", "launch -n 2 CONFIG, which trains"),
    "--resum": UNKNOWN.format("--resum", "--resume"),
    "a.yaml --print-confg=1": UNKNOWN.format("--print-confg=1", "--print-config"),
    "launch -n 2 --resum": UNKNOWN.format("--resum", "--resume"),
    "-n 4 a.yaml": UNKNOWN.format("-n", "mpiadv launch -n 4 CONFIG"),
    "--fast": "unrecognized arguments: --fast: see mpiadv --help",
    "evaluate runs/digits --attak pgd": "evaluate: unrecognized arguments: --attak pgd: "
    "did you mean --attack? See mpiadv evaluate --help",
    "launch -n 2 evaluate": "evaluate: the following arguments are required: "
    "CHECKPOINT|KEY=VALUE: see mpiadv evaluate --help",
    "plan --rank 3": "plan: unrecognized arguments: --rank: did you mean --ranks? See mpiadv plan "
    "--help",
    "plan --ranks 2,1000000": "plan: argument --ranks: 1000000: expected at least 1, and at "
    "most 1,024: see mpiadv plan --help",
    "plan --ranks": "plan: argument --ranks: expected one argument: see mpiadv plan --help",
    "report": "report: the following arguments are required: LOG_OR_RUN_FOLDER: see mpiadv report "
    "--help",
}


@pytest.mark.parametrize("line", [pytest.param(line, id=line[:40]) for line in REFUSED])
def test_what_is_no_command_line_is_refused_in_one_line_before_anything_is_loaded(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert cli.main(line.split()) == 2
    assert calls == []
    assert capsys.readouterr() == ("", f"mpiadv: error: {REFUSED[line]}\n")


EMPTY = {
    "train": ([""], "there is an empty word"),
    "train_behind": (["a.yaml", ""], "there is an empty word behind 'a.yaml'"),
    "launch": (["launch", "-n", "2", ""], "there is an empty word"),
    "evaluate": (["evaluate", ""], "evaluate: there is an empty word"),
    "evaluate_option": (
        ["evaluate", "runs/a", "--output", ""],
        "evaluate: there is an empty word behind '--output'",
    ),
    "plan_option": (["plan", "--ranks="], "plan: there is an empty word behind '--ranks='"),
    "report": (["report", ""], "report: there is an empty word"),
    "watch": (["watch", ""], "watch: there is an empty word"),
    "study": (["study", "", "--preset", "smoke"], "study: there is an empty word"),
    "submit": (["submit", "", "--gpus", "2"], "submit: there is an empty word"),
}


@pytest.mark.parametrize(("words", "told"), EMPTY.values(), ids=EMPTY)
def test_empty_word_is_refused_and_not_passed_over(
    calls: list[tuple[str, object]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    assert cli.main(words) == 2
    assert calls == []
    line = f"mpiadv: error: {told}: is a variable of the shell not set? See mpiadv"
    assert capsys.readouterr().err.startswith(line)


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
    assert calls == [("run", [name])]


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

    monkeypatch.setitem(sys.modules, "mpiadv.run", SimpleNamespace(main=refuse))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "mpiadv: error: no such thing\n"


ANSWERS = {
    "--help": "usage: mpiadv [CONFIG] [key.subkey=value ...]",
    "-h": "       mpiadv launch -n RANKS [CONFIG]",
    "--version": f"mpiadv {version('mpiadv')}",
    "launch --help": "usage: mpiadv launch -n RANKS [--fault-tolerant] [CONFIG]",
    "launch -n 2 a.yaml --help": "usage: mpiadv launch -n RANKS [--fault-tolerant] [CONFIG]",
    "launch -n 2 evaluate --help": "usage: mpiadv evaluate [-h] [--attack",
    "a.yaml --help": "usage: mpiadv [-h] [--resume]",
    "plan --help": "usage: mpiadv plan [-h] [--ranks N,N,...]",
    "evaluate --help": "usage: mpiadv evaluate [-h] [--attack",
}


@pytest.mark.parametrize("line", ANSWERS)
def test_question_is_answered_before_anything_is_loaded(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert cli.main(line.split()) == 0
    assert calls == []
    assert ANSWERS[line] in capsys.readouterr().out


def test_help_of_evaluate_names_the_attacks_that_there_are() -> None:
    assert tuple(KINDS) == evaluate.ATTACKS
    assert tuple(PROTOCOLS) == evaluate.PROTOCOLS


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
    def main(argv: Sequence[str]) -> int:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setitem(sys.modules, "mpiadv.commands.watch", SimpleNamespace(main=main))
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


NUMBERS = [
    (
        "plan",
        "--ranks",
        "1000000",
        "argument --ranks: 1000000: expected at least 1, and at most 1,024",
    ),
    ("plan", "--ranks", "2,x", "argument --ranks: x is no whole number"),
    ("plan", "--ranks-per-host", "0", "0: expected at least 1, and at most 1,024"),
    ("plan", "--bandwidth", "1e300", "1e300: expected more than 0, and at most 1,000,000"),
    ("plan", "--latency", "nan", "nan: expected 0 or more, and at most 1,000,000"),
    ("evaluate", "--samples", "9" * 5000, "expected at least 1, and at most 1,000,000,000"),
    ("evaluate", "--samples", "²", "² is no whole number"),
    ("evaluate", "--samples", "1.0", "1.0 is no whole number"),
    ("study", "--jobs", "100000", "100000: expected at least 1, and at most 10,000"),
    ("study", "--share", "²/3", "--share ²/3: expected I/N, from 1/N to N/N"),
    ("submit", "--gpus", "1_0", "1_0 is no whole number"),
    ("submit", "--nodes", "10000000", "10000000: expected at least 1, and at most 1,000,000"),
    ("watch", "--every", "1e9", "1e9: expected more than 0, and at most 86,400"),
]


@pytest.mark.parametrize(("command", "option", "value", "line"), NUMBERS)
def test_number_of_an_option_has_bounds(
    capsys: pytest.CaptureFixture[str], command: str, option: str, value: str, line: str
) -> None:
    words = {"study": ["power", "--preset", "smoke"], "watch": ["."], "evaluate": ["."]}
    assert cli.main([command, *words.get(command, []), option, value]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1 and len(told) < 300
