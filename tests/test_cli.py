"""The command line's first word decides who gets the rest."""

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from mpiadv import cli
from mpiadv.errors import UserError
from mpiadv.interruption import SignalRelay


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What the programs and the launcher were called with; all return 75."""
    seen: list[tuple[str, object]] = []

    def run(argv: Sequence[str]) -> int:
        seen.append(("run", list(argv)))
        return 75

    def launch(
        ranks: int, arguments: Sequence[str], relay: SignalRelay, *, fault_tolerant: bool
    ) -> int:
        seen.append(("launch", (ranks, list(arguments), fault_tolerant)))
        return 75

    def evaluate(argv: Sequence[str]) -> int:
        seen.append(("evaluate", list(argv)))
        return 75

    monkeypatch.setitem(sys.modules, "mpiadv.run", SimpleNamespace(main=run))
    monkeypatch.setitem(sys.modules, "mpiadv.evaluate", SimpleNamespace(main=evaluate))
    monkeypatch.setitem(sys.modules, "mpiadv.launch", SimpleNamespace(launch=launch))
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


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["launch"], id="no_number"),
        pytest.param(["launch", "a.yaml"], id="configuration_first"),
        pytest.param(["launch", "-n"], id="number_missing"),
        pytest.param(["launch", "-n", "all"], id="no_digit"),
        pytest.param(["launch", "-n", "-1"], id="negative"),
    ],
)
def test_launch_without_a_number_of_ranks_is_refused_in_one_line(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert cli.main(argv) == 2
    assert calls == []
    assert capsys.readouterr().err == (
        "mpiadv: error: launch: expected the number of ranks first: mpiadv launch -n 4 CONFIG\n"
    )


def test_users_error_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(argv: Sequence[str]) -> int:
        raise UserError("no such thing")

    monkeypatch.setitem(sys.modules, "mpiadv.run", SimpleNamespace(main=refuse))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "mpiadv: error: no such thing\n"


def test_misspelt_command_is_not_taken_for_a_configuration(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evalute", "runs/digits"]) == 2
    words = "mpiadv: error: no command evalute: did you mean mpiadv evaluate?\n"
    assert capsys.readouterr().err == words
    assert not calls


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["launch", "--help"]], ids=" ".join)
def test_help_shows_both_ways_to_train(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert cli.main(argv) == 0
    assert calls == []
    shown = capsys.readouterr().out
    assert "mpiadv [CONFIG] [key.subkey=value ...]" in shown
    assert "mpiadv launch -n RANKS [CONFIG]" in shown


def test_launcher_loads_neither_torch_nor_mpi() -> None:
    program = "import sys, mpiadv.cli; print({'torch', 'mpi4py', 'h5py'} & set(sys.modules))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert completed.stdout == "set()\n"
