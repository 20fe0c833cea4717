"""The run folder: one run at a time, nothing written over."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpiadv.process.errors import UserError
from mpiadv.session.desk import open_desk
from mpiadv.settings import load_config
from mpiadv.storage.run_folder import RunFolder, RunState, state_of


def test_missing_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs" / "one", resume=False) as folder:
        assert folder.path.is_dir()
        assert not folder.held_run


def test_folder_in_use_is_refused_naming_the_process(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, resume=False),
        pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()} on host "),
    ):
        RunFolder(tmp_path, resume=True)


def test_closed_folder_is_free_again(tmp_path: Path) -> None:
    RunFolder(tmp_path, resume=False).close()
    RunFolder(tmp_path, resume=False).close()


def test_state_of_a_run_is_told_without_touching_its_folder(tmp_path: Path) -> None:
    assert state_of(tmp_path) is RunState.UNKNOWN
    with RunFolder(tmp_path, resume=False) as folder:
        assert state_of(tmp_path) is RunState.RUNNING
    assert state_of(tmp_path) is RunState.STOPPED
    folder.mark_done("100 %")
    assert state_of(tmp_path) is RunState.FINISHED
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "DONE"}


def test_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from mpiadv.storage.run_folder import RunFolder\n"
        "folder = RunFolder(sys.argv[1], resume=False)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on host"):
            RunFolder(tmp_path, resume=False)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    RunFolder(tmp_path, resume=False).close()


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        *(
            (name, "holds a run that has not finished: add --resume")
            for name in ("log.h5", "checkpoints")
        ),
        ("model.pt", "holds a run that has not finished: add --resume"),
        ("DONE", "holds a finished run: choose another folder"),
    ],
)
def test_folder_holding_another_run_needs_resume(tmp_path: Path, trace: str, line: str) -> None:
    held = tmp_path / trace / "held" if trace == "checkpoints" else tmp_path / trace
    held.parent.mkdir(exist_ok=True)
    held.write_text("of the other run")
    with pytest.raises(UserError, match=line) as refusal:
        RunFolder(tmp_path, resume=False)
    assert "\n" not in str(refusal.value)
    assert held.read_text() == "of the other run"
    with RunFolder(tmp_path, resume=True) as folder:
        assert folder.held_run


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_pipe(path: Path) -> None:
    os.mkfifo(path)


def _a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def _a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "name", ["log.h5", "DONE", "model.pt", "model-ema.pt", "lock", "checkpoints"]
)
@pytest.mark.parametrize("make", [_a_folder, _a_pipe, _a_link_to_nothing, _a_link_to_itself])
def test_what_is_no_file_of_a_run_is_refused_by_its_name(
    tmp_path: Path, make: Callable[[Path], None], name: str, resume: bool
) -> None:
    if (make, name) == (_a_folder, "checkpoints"):
        make = Path.touch
    make(tmp_path / name)
    before = [path.name for path in tmp_path.iterdir()]
    with pytest.raises(UserError, match=rf"/{name} is (a|no|not) .*: move it away") as refusal:
        RunFolder(tmp_path, resume=resume)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == before


def test_output_that_is_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="run is a link to nothing: choose another folder"):
        RunFolder(tmp_path / "run", resume=False)


def test_lock_on_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(UserError, match="not writable: No space left on device"):
        RunFolder(tmp_path, resume=False)


@pytest.mark.parametrize("how", ["removed", "written over", "emptied"])
def test_lock_that_somebody_touched_is_made_again(tmp_path: Path, how: str) -> None:
    with RunFolder(tmp_path, resume=False) as folder:
        lock, signature = tmp_path / "lock", (tmp_path / "lock").read_text()
        folder.lock.require_held()
        assert folder.lock.take_news() == ""
        if how == "removed":
            lock.unlink()
        else:
            lock.write_text("" if how == "emptied" else "other words, and more of them than before")
        folder.lock.require_held()
        assert f"lock was {'removed' if how == 'removed' else 'written over'}" in (
            folder.lock.take_news()
        )
        assert lock.read_text() == signature and folder.lock.take_news() == ""
        with pytest.raises(UserError, match="in use by another run"):
            RunFolder(tmp_path, resume=False)
    RunFolder(tmp_path, resume=False).close()


@pytest.mark.parametrize("is_over", [False, True], ids=["is there", "has been there"])
def test_folder_that_another_run_took_is_not_this_runs_any_more(
    tmp_path: Path, is_over: bool
) -> None:
    with RunFolder(tmp_path, resume=False) as folder:
        (tmp_path / "lock").unlink()
        other = RunFolder(tmp_path, resume=False)
        if is_over:
            other.close()
        with pytest.raises(OSError, match="another run has taken the run's folder"):
            folder.lock.require_held()
        other.close()


def test_folder_that_was_replaced_is_not_this_runs_any_more(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", resume=False) as folder:
        (tmp_path / "run").rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            folder.lock.require_held()
        (tmp_path / "run").mkdir()
        with pytest.raises(FileNotFoundError, match="the run's folder was replaced"):
            folder.lock.require_held()
        assert [*(tmp_path / "run").iterdir()] == []


def test_unrelated_files_do_not_count_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with RunFolder(tmp_path, resume=False) as folder:
        assert not folder.held_run


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    for output in (path, path / "below"):
        with pytest.raises(UserError, match=r"output folder .*file"):
            RunFolder(output, resume=False)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "RO")])
def test_read_only_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=f"not writable: {error.strerror}"):
        RunFolder(tmp_path, resume=False)


def test_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("mpiadv.storage.run_lock.fcntl.flock", refuse)
    monkeypatch.setattr(RunFolder, "close", lambda self: None)
    with pytest.warns(UserWarning, match="has no locks"):
        RunFolder(tmp_path, resume=False)


def test_done_marker_is_kept_for_the_next_start(tmp_path: Path) -> None:
    with RunFolder(tmp_path, resume=False) as folder:
        assert not folder.is_done
        folder.mark_done("500 steps")
    with RunFolder(tmp_path, resume=True) as folder:
        assert folder.is_done
    assert (tmp_path / "DONE").read_text() == "500 steps\n"


def test_name_that_is_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    config = load_config(None, [f"output={tmp_path / (300 * 'L')}"])
    with pytest.raises(UserError, match=r"cannot create output folder .*: File name too long"):
        open_desk(config, resume=False)
