"""What a killed `mpirun` has left does not keep the next one from starting."""

from pathlib import Path

import pytest
from mpi_runner import launcher_or_skip, mpirun

from mpiadv.cluster.launch import launch
from mpiadv.cluster.launcher import Launcher
from mpiadv.command_lines.launch import Launch
from mpiadv.process.interruption import SignalRelay

ON_THIS_HOST, ON_ALL_HOSTS = "PRTE_MCA_prte_local_tmpdir_base", "PRTE_MCA_prte_tmpdir_base"

LEAVES_FILES_OF_ITS_NUMBER = """#!/bin/bash
mkdir -p "$TMPDIR/ompi.$$"
touch "$TMPDIR/ompi.$$/pmix.$(hostname).tool" "$TMPDIR/ompi.$$/pmix.$(hostname).tool.$$"
"""
"""A script whose process then becomes the `mpirun`: as if one of its number had been killed."""


@pytest.mark.usefixtures("needs_mpirun")
def test_launch_starts_where_an_mpirun_of_the_same_number_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = launcher_or_skip()
    program = tmp_path / "mpirun"
    program.write_text(f'{LEAVES_FILES_OF_ITS_NUMBER}exec "{found.path}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # asks the environment anew
    again = Launcher(path=str(program), is_open_mpi=found.is_open_mpi)
    monkeypatch.setattr("mpiadv.cluster.launch.find_launcher", lambda: again)
    wanted = Launch(ranks=1, words=("--help",), is_fault_tolerant=False)
    assert launch(wanted, SignalRelay()) == 0, capfd.readouterr().err
    assert "usage: " in capfd.readouterr().out
    assert list(tmp_path.glob("ompi.*")), "nothing was left that could have kept it"
    assert not list(tmp_path.glob("mpiadv-*"))


@pytest.mark.parametrize(
    ("given", "is_open_mpi", "expected"),
    [
        pytest.param({}, True, "/room", id="its_own_folder"),
        pytest.param({ON_THIS_HOST: "/mine"}, True, "/mine", id="users_own"),
        pytest.param({ON_ALL_HOSTS: "/mine"}, True, None, id="users_own_on_all_hosts"),
        pytest.param({"SLURM_JOB_ID": "1"}, True, None, id="cluster_may_have_told_it_in_a_file"),
        pytest.param({}, False, None, id="other_mpi"),
    ],
)
def test_where_mpirun_puts_its_files(
    given: dict[str, str], is_open_mpi: bool, expected: str | None
) -> None:
    launcher = Launcher(path="/bin/mpirun", is_open_mpi=is_open_mpi)
    environ = launcher.environment(given, is_root=False, room=Path("/room"))
    assert environ.get(ON_THIS_HOST) == expected
    assert environ.get(ON_ALL_HOSTS) == given.get(ON_ALL_HOSTS)


@pytest.mark.usefixtures("needs_mpirun")
def test_tests_start_where_a_folder_is_named_for_all_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ON_ALL_HOSTS, str(tmp_path))
    assert mpirun(["true"], ranks=1, timeout=60).returncode == 0
