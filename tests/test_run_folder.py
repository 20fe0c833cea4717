"""The run folder: one run at a time, nothing written over."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpiadv.errors import UserError
from mpiadv.run_folder import RunFolder, RunState, state_of


def test_missing_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "runs" / "one", resume=False) as folder:
        assert folder.path.is_dir()
        assert not folder.held_run


def test_folder_in_use_is_refused_naming_the_process(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, resume=False),
        pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()} on host "),
    ):
        RunFolder.open(tmp_path, resume=True)


def test_closed_folder_is_free_again(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, resume=False).close()
    RunFolder.open(tmp_path, resume=False).close()


def test_state_of_a_run_is_told_without_touching_its_folder(tmp_path: Path) -> None:
    assert state_of(tmp_path) is RunState.UNKNOWN
    with RunFolder.open(tmp_path, resume=False) as folder:
        assert state_of(tmp_path) is RunState.RUNNING
    assert state_of(tmp_path) is RunState.STOPPED
    folder.mark_done("100 %")
    assert state_of(tmp_path) is RunState.FINISHED
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "DONE"}


def test_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from mpiadv.run_folder import RunFolder\n"
        "folder = RunFolder.open(sys.argv[1], resume=False)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on host"):
            RunFolder.open(tmp_path, resume=False)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    RunFolder.open(tmp_path, resume=False).close()


@pytest.mark.parametrize("trace", ["log.h5", "checkpoints", "model.pt", "DONE"])
def test_folder_holding_another_run_needs_resume(tmp_path: Path, trace: str) -> None:
    (tmp_path / trace).write_text("of the other run")
    with pytest.raises(UserError, match="holds another run: add --resume") as refusal:
        RunFolder.open(tmp_path, resume=False)
    assert "\n" not in str(refusal.value)
    assert (tmp_path / trace).read_text() == "of the other run"
    with RunFolder.open(tmp_path, resume=True) as folder:
        assert folder.held_run


def test_unrelated_files_do_not_count_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with RunFolder.open(tmp_path, resume=False) as folder:
        assert not folder.held_run


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    for output in (path, path / "below"):
        with pytest.raises(UserError, match=r"output folder .*file"):
            RunFolder.open(output, resume=False)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "RO")])
def test_read_only_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=f"not writable: {error.strerror}"):
        RunFolder.open(tmp_path, resume=False)


def test_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("mpiadv.run_folder.fcntl.flock", refuse)
    monkeypatch.setattr(RunFolder, "close", lambda self: None)
    with pytest.warns(UserWarning, match="has no locks"):
        RunFolder.open(tmp_path, resume=False)


def test_done_marker_is_kept_for_the_next_start(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, resume=False) as folder:
        assert not folder.is_done
        folder.mark_done("500 steps")
    with RunFolder.open(tmp_path, resume=True) as folder:
        assert folder.is_done
    assert (tmp_path / "DONE").read_text() == "500 steps\n"
