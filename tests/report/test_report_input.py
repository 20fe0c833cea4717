"""What a report says of the runs it is given, however they ended, and of what is no run."""

import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rich.console import Console
from sample_logs import (
    BEGAN,
    attributes,
    begin,
    begun_run,
    evaluation_row,
    finished_run,
    gone_process,
    sign,
    write_steps,
)

from mpiadv import cli
from mpiadv.process.errors import UserError
from mpiadv.report.reading import Log, read_log
from mpiadv.report.screen import Sight, screen
from mpiadv.report.summary import differing_settings
from mpiadv.runlog import RunLog
from mpiadv.settings.yaml_files import dump_yaml, parse_yaml


def test_settings_are_shown_where_runs_differ(tmp_path: Path) -> None:
    one = finished_run(tmp_path / "one", seed=1)
    two = finished_run(tmp_path / "two", seed=2, attack={"epsilon": 0.2})
    rows = differing_settings([read_log(one), read_log(two)])
    assert rows == [("seed", "1", "2"), ("attack.epsilon", "0.15", "0.2")]


def interrupted(folder: Path) -> None:
    with begin(folder) as log:
        log.event("interrupted", "checkpoint of step 0", 0)
    (folder / "lock").write_text("")


def diverged_at_once(folder: Path) -> None:
    with begin(folder) as log:
        log.event("diverged", "the training loss is nan at step 0", 0)
    (folder / "lock").write_text("")


def stopped(folder: Path) -> None:
    (begun_run(folder) / "lock").write_text("")


def running(folder: Path) -> None:
    sign(begun_run(folder), os.getpid())


def running_elsewhere(folder: Path) -> None:
    sign(begun_run(folder), 1, "another-host")


def killed(folder: Path) -> None:
    sign(begun_run(folder), gone_process())


CONDITIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "finished": (finished_run, "finished"),
    "interrupted": (interrupted, "interrupted"),
    "ended_by_an_error": (stopped, "stopped"),
    "diverged": (diverged_at_once, "diverged"),
    "running": (running, "running"),
    "running_on_another_host": (running_elsewhere, "running"),
    "killed": (killed, "killed"),
    "log_alone": (begun_run, "a log alone"),
}


@pytest.mark.parametrize(
    ("make", "condition"), [pytest.param(*case, id=name) for name, case in CONDITIONS.items()]
)
def test_condition_of_a_run_is_told(tmp_path: Path, make: Any, condition: str) -> None:
    make(tmp_path / "run")
    assert read_log(tmp_path / "run").condition == condition


def test_copied_log_of_a_finished_run_counts_as_finished(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    copy = shutil.copy(tmp_path / "run" / "log.h5", tmp_path / "copy.h5")
    log = read_log(copy)
    assert (log.condition, log.label) == ("finished", "copy")


def no_log(folder: Path) -> list[str]:
    return [str(folder / "missing.h5")]


def empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return [str(folder / "empty")]


def no_hdf5(folder: Path) -> list[str]:
    (folder / "log.h5").write_text("not HDF5")
    return [str(folder)]


def cut_off(folder: Path) -> list[str]:
    path = begun_run(folder) / "log.h5"
    os.truncate(path, path.stat().st_size // 2)
    return [str(folder)]


def another_programs(folder: Path) -> list[str]:
    with h5py.File(folder / "other.h5", "w") as file:
        file["train"] = np.zeros(3)
    return [str(folder / "other.h5")]


def without_tables(folder: Path) -> list[str]:
    with h5py.File(folder / "other.h5", "w") as file:
        file.attrs["format_version"] = 1
        file["train"] = np.zeros(3)
    return [str(folder / "other.h5")]


def newer(folder: Path) -> list[str]:
    with h5py.File(begun_run(folder) / "log.h5", "r+") as file:
        file.attrs["format_version"] = 2
    return [str(folder)]


def without_a_word(folder: Path) -> list[str]:
    return []


def into_no_folder(folder: Path) -> list[str]:
    return [str(begun_run(folder)), "--output", str(folder / "missing" / "page.html")]


def onto_a_folder(folder: Path) -> list[str]:
    return [str(begun_run(folder)), "--output", str(folder)]


def figures_onto_a_file(folder: Path) -> list[str]:
    begun_run(folder, 1)
    return [str(folder), "--figures", str(folder / "log.h5")]


BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "no_log": (no_log, "there is no log at .*missing.h5: give a run's folder, or a log"),
    "folder_without_a_log": (empty_folder, "empty holds no log.h5: give a run's folder, or a log"),
    "no_hdf5": (no_hdf5, "log.h5 cannot be read as a log: .*file signature not found"),
    "cut_off": (cut_off, "log.h5 cannot be read as a log: .*truncated file"),
    "another_programs": (another_programs, "is not a log of mpiadv: it has no format_version"),
    "without_tables": (without_tables, "is not a log of mpiadv: it has no table train"),
    "newer_format": (newer, "has log format 2, this mpiadv reads format 1: use .* newer one"),
    "no_words": (without_a_word, "report: .*required: LOG_OR_RUN_FOLDER: see .*--help"),
    "output_in_no_folder": (into_no_folder, "there is no folder .*missing to write page.html"),
    "output_is_a_folder": (onto_a_folder, "is a folder: say --output .*report.html"),
    "figures_is_a_file": (figures_onto_a_file, "cannot create the folder .*: File exists"),
}


@pytest.mark.parametrize(
    ("words", "told"), [pytest.param(*case, id=name) for name, case in BAD.items()]
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Any,
    told: str,
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    arguments = words(given)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = {path: path.read_bytes() for path in given.rglob("*") if path.is_file()}
    assert cli.main(["report", *arguments]) == 2
    assert re.fullmatch(f"mpiadv: error: .*{told}.*\n", capsys.readouterr().err)
    assert list(Path.cwd().iterdir()) == []
    assert {path: path.read_bytes() for path in given.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("seed", range(20))
def test_damaged_log_is_read_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    path = begun_run(tmp_path / "run", 5) / "log.h5"
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    place = int(random.integers(len(data) if seed % 2 else 8192))
    data[place : place + 40] = random.bytes(40)
    path.write_bytes(data)
    try:
        read_log(path)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)


NASTY = "<script>alert(1)</script>\x1b[2J\x07$\\frac$\n"


def test_what_a_log_says_reaches_neither_terminal_nor_page_as_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run$\\frac$\x1b[2J"
    run.mkdir()
    told = {**attributes(), "hosts": NASTY, "device": NASTY, NASTY: NASTY}
    told["config"] = dump_yaml({**parse_yaml(str(told["config"])), "output": NASTY, NASTY: NASTY})
    with RunLog.create(run / "log.h5", attributes=told, clock=lambda: BEGAN) as log:
        write_steps(log, 0, 30, snapshots=False)
        log.evaluation(dataclasses.replace(evaluation_row(30), attack=NASTY))
        for kind in ("lost", "end", NASTY):
            log.event(kind, NASTY, 30)
    (run / "evaluation.json").write_text(json.dumps({"format": NASTY}))
    assert cli.main(["report", str(run)]) == 0
    assert cli.main(["watch", str(run), "--once"]) == 0
    page = (run / "report.html").read_text()
    shown = capsys.readouterr().out + page + screen_text(read_log(run))
    assert not {"\x1b", "\x07"} & set(shown) and "<script" not in page
    assert "&lt;script&gt;alert(1)" in page and "\\x1b[2J" in page


def screen_text(log: Log) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(screen(log, Sight(now=BEGAN, width=100, ascii_only=False, trouble="")))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_page_of_one_run_lies_in_its_folder_and_of_others_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for run in (one, two):
        begin(run).close()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["report", str(one)]) == 0
    assert (one / "report.html").exists() and [*(tmp_path / "here").iterdir()] == []
    assert cli.main(["report", str(one), str(two)]) == 0
    assert cli.main(["report", str(two / "log.h5")]) == 0
    assert (tmp_path / "here" / "report.html").exists() and not (two / "report.html").exists()


def test_log_without_rows_is_shown_as_one(tmp_path: Path) -> None:
    begin(tmp_path / "run").close()
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    assert cli.main(["watch", str(tmp_path / "run"), "--once"]) == 0


@pytest.mark.parametrize("command", ["report", "watch"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "huge", "empty", "link"])
def test_what_is_no_log_is_one_line_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    path = tmp_path / "given"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nothing")
    elif kind != "endless":
        path.touch()
        os.truncate(path, 2**40 if kind == "huge" else 0)
    given = "/dev/zero" if kind == "endless" else str(path)
    assert cli.main([command, given]) == 2
    assert re.fullmatch(r"mpiadv: error: .*(no log at|cannot be read).*\n", capsys.readouterr().err)
