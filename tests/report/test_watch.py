"""Watching a run: what is shown is what the log says, and the run's end or death is survived."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mpi_runner import HERE
from rich.console import Console
from sample_logs import BEGAN, begin, begun_run, finished_run, gone_process, resumed_run, sign

from mpiadv import cli
from mpiadv.report.curves import ASCII_LEVELS, counts_up_to, segments, shrunk, sparkline
from mpiadv.report.reading import Log, read_log
from mpiadv.report.screen import Sight, line, screen
from mpiadv.report.watching import looks
from mpiadv.runlog import RunLog

NAN = float("nan")

CURVES = {
    "rising": ([0, 1, 2, 3, 4, 5, 6, 7], 8, {}, "▁▂▃▄▅▆▇█"),
    "shrunk_to_means": ([0, 0, 7, 7], 2, {}, "▁█"),
    "shorter_than_the_width": ([1, 2], 9, {}, "▁█"),
    "constant": ([3, 3, 3], 3, {}, "▁▁▁"),
    "on_a_given_scale": ([0.5, 1.0], 2, {"low": 0.0, "high": 1.0}, "▅█"),
    "beyond_the_scale": ([-1, 9], 2, {"low": 0.0, "high": 1.0}, "▁█"),
    "unknown_is_blank": ([0, NAN, 7], 3, {}, "▁ █"),
    "all_unknown": ([NAN, NAN], 2, {}, ""),
    "nothing": ([], 5, {}, ""),
    "ascii": ([0, 7], 2, {"levels": ASCII_LEVELS}, "_#"),
}


@pytest.mark.parametrize(
    ("values", "width", "options", "drawn"),
    [pytest.param(*case, id=name) for name, case in CURVES.items()],
)
def test_sparkline_follows_the_values(
    values: list[float], width: int, options: dict[str, float], drawn: str
) -> None:
    assert sparkline(values, width, **options) == drawn  # type: ignore[arg-type]


def test_shrinking_keeps_means_and_leaves_out_the_unknown() -> None:
    np.testing.assert_array_equal(shrunk(np.array([1, NAN, 3, 5, NAN, NAN]), 3), [1, 4, NAN])


def test_segments_fill_the_width_exactly() -> None:
    assert segments({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10) == {"a": 3, "b": 4, "c": 3}
    assert segments({"a": 0.0, "b": 0.0}, 10) == {"a": 0, "b": 0}


def test_staleness_is_counted_up_to_the_bound() -> None:
    assert counts_up_to(np.array([0, 2, 2, 9]), 3).tolist() == [1, 0, 2, 0]


def shown(log: Log, *, now: float = BEGAN, width: int = 110, ascii_only: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    console.print(screen(log, Sight(now=now, width=width, ascii_only=ascii_only)))
    return stream.getvalue()


def test_screen_tells_progress_curves_staleness_shares_and_events(tmp_path: Path) -> None:
    log = read_log(resumed_run(tmp_path / "run"), snapshots=False)
    text = shown(log, now=BEGAN + 3600 + 7.5 + 90)
    for told in (
        r"run: running",
        r"40 of 60 steps, 67 %, 0:20 so far, 0:10 left at 2\.00 steps/s",
        r"loss +█.*▁ .*0\.\d{3}",
        r"test, PGD-40 .*70\.0 %",
        r"test, natural .*96\.0 %",
        r"staleness, first step .*worst 16, bound 16",
        r"staleness, last step .*worst 2, bound 2",
        r"trainer: training, crafting, waiting, publishing, other",
        r"rank 0 .*20  40  30  2  8 %",
        r"attackers: crafting, waiting for parameters, for the trainer, for tickets",
        r"rank 1 .*60  10  20  10 %",
        r"step 25: interrupted: checkpoint of step 25",
        r"last row 1:30 ago",
    ):
        assert re.search(told, text), f"{told} in\n{text}"


def test_narrow_terminal_without_utf8_gets_plain_characters(tmp_path: Path) -> None:
    text = shown(read_log(resumed_run(tmp_path / "run")), width=60, ascii_only=True)
    assert not set("█▁▅…") & set(text)
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_run_that_has_hardly_begun_is_shown(tmp_path: Path, num_steps: int) -> None:
    log = read_log(begun_run(tmp_path / "run", num_steps))
    assert f"{num_steps} of 60 steps" in shown(log)
    assert line(log, Sight(now=BEGAN)).startswith(f"step {num_steps}/60  ")


def test_killed_run_is_told_with_its_last_row_and_a_way_on(tmp_path: Path) -> None:
    sign(begun_run(tmp_path / "run", 30), gone_process())
    log, now = read_log(tmp_path / "run"), BEGAN + 15 + 3725
    assert "killed, last row 1:02:05 ago" in line(log, Sight(now=now))
    assert " left " not in line(log, Sight(now=now))
    assert "last row 1:02:05 ago; --resume goes on" in shown(log, now=now)


def test_looking_ends_with_the_finished_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log = begin(folder)
    sign(folder, os.getpid())
    pauses: list[float] = []

    def meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            log.event("end", "hash 0123", 60)
            log.close()
            (folder / "DONE").touch()

    seen = [log.condition for log, _ in looks(str(folder), 5.0, sleep=meanwhile)]
    assert seen == ["running", "running", "finished"]
    assert pauses == [5.0, 5.0]


@pytest.mark.parametrize("kind", ["diverged", "overfitted"])
def test_looking_ends_with_a_run_that_ended_itself(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    log = begin(folder)
    sign(folder, os.getpid())

    def meanwhile(seconds: float) -> None:
        log.event(kind, "at step 60", 60)
        log.close()
        (folder / "lock").write_text("")

    seen = [log.condition for log, _ in looks(str(folder), 5.0, sleep=meanwhile)]
    assert seen == ["running", kind]


def test_run_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    sign(folder, os.getpid())
    starts: list[Callable[[], object]] = [lambda: None, lambda: finished_run(folder)]
    seen = list(looks(str(folder), 5.0, sleep=lambda seconds: starts.pop(0)() and None))
    assert [log.condition for log, _ in seen] == ["finished"]
    assert not starts


def test_log_that_cannot_be_read_for_a_while_keeps_the_last_picture(tmp_path: Path) -> None:
    folder = begun_run(tmp_path / "run")
    path, aside = folder / "log.h5", folder / "aside"
    changes: list[Callable[[], object]] = [
        lambda: path.rename(aside),
        lambda: aside.rename(path),
        lambda: (folder / "DONE").touch(),
    ]
    seen = list(looks(str(folder), 1.0, sleep=lambda seconds: changes.pop(0)() and None))
    assert [trouble for _, trouble in seen] == [
        "", f"{folder} holds no log.h5: give a run's folder, or a log", "", "",
    ]  # fmt: skip
    assert [log.num_steps for log, _ in seen] == [30, 30, 30, 30]


def test_cut_back_log_is_shown_as_it_is_now(tmp_path: Path) -> None:
    folder = begun_run(tmp_path / "run", 30)

    def resume(seconds: float) -> None:
        RunLog.resume(folder / "log.h5", step=20, num_steps=30, attributes={}).close()
        (folder / "DONE").touch()

    assert [log.num_steps for log, _ in looks(str(folder), 1.0, sleep=resume)] == [30, 20]


BAD = {
    "no_log": (["missing"], "there is no log at missing: give a run's folder, or a log"),
    "no_word": ([], "watch: the following arguments are required: LOG_OR_RUN_FOLDER: see .*"),
    "no_pace": (
        ["log.h5", "--every", "0"],
        "watch: .*0: expected more than 0, and at most 86,400.*",
    ),
    "no_number": (["log.h5", "--every", "x"], "watch: .*x is no number.*"),
}


@pytest.mark.parametrize(
    ("words", "told"), [pytest.param(*case, id=name) for name, case in BAD.items()]
)
def test_bad_input_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert cli.main(["watch", *words]) == 2
    assert re.fullmatch(f"mpiadv: error: {told}\n", capsys.readouterr().err)


WRITER = """
import itertools, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from sample_logs import attributes, sign, train_row
import os
from mpiadv.runlog import RunLog
folder = Path(sys.argv[2])
sign(folder, os.getpid())
with RunLog.create(folder / "log.h5", attributes=attributes()) as log:
    for step in itertools.count():
        log.train(train_row(step, began=time.time() - step / 2))
        log.flush()
        print(step, flush=True)
        time.sleep(0.01)
"""


def watching(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mpiadv.cli", "watch", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_lines_follow_a_run_beyond_its_death_until_interrupted(tmp_path: Path) -> None:
    here = str(HERE)
    command = [sys.executable, "-c", WRITER, here, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "0\n"
        with watching(tmp_path, "--every", "0.1") as watcher:
            assert watcher.stdout is not None and watcher.stderr is not None
            seen = [watcher.stdout.readline() for _ in range(3)]
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
            deadline = time.monotonic() + 30
            while "killed" not in seen[-1] and time.monotonic() < deadline:
                seen.append(watcher.stdout.readline())
            seen.append(watcher.stdout.readline())
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(30) == 0
            assert watcher.stderr.read() == ""
    steps = [int(found[1]) for text in seen if (found := re.match(r"step (\d+)/60 ", text))]
    assert len(steps) == len(seen) and steps == sorted(steps) and steps[2] > steps[0]
    assert "running, last row 0:00 ago" in seen[0]
    assert all("killed, last row 0:0" in text for text in seen[-2:])


def test_terminal_shows_the_finished_run_and_comes_back(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    leader, terminal = pty.openpty()
    command = [sys.executable, "-m", "mpiadv.cli", "watch", str(folder)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as watcher:
        os.close(terminal)
        text = b""
        try:
            while data := os.read(leader, 65536):
                text += data
        except OSError:  # the terminal's other end is closed
            pass
        assert watcher.wait(30) == 0
    os.close(leader)
    decoded = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert "run: finished" in decoded and "60 of 60 steps, 100 %" in decoded
    assert "end: hash 0123abcd" in decoded


def test_reader_that_goes_away_ends_watching_quietly(tmp_path: Path) -> None:
    with watching(begun_run(tmp_path / "run"), "--every", "0.05") as watcher:
        assert watcher.stdout is not None and watcher.stderr is not None
        assert watcher.stdout.readline().startswith("step 30/60 ")
        watcher.stdout.close()
        assert watcher.wait(30) == 0
        assert watcher.stderr.read() == ""


def test_one_look_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(begun_run(tmp_path / "run")), "--once"]) == 0
    assert re.fullmatch(
        r"step 30/60  2\.00 steps/s  loss 1\.\d{3}  adversarial 5\d\.\d %  "
        r"test 96\.0 % natural, 60\.0 % PGD-40  staleness 15\.5 to 1\.1  trainer waits 30\.0 %  "
        r"left 0:15  a log alone, last row \d+ days ago\n",
        capsys.readouterr().out,
    )
