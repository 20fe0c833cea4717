"""The study of speed-up: a small real one, what it measures, and what it shows of made-up rows."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up_study import open_study
from mpi_runner import finished, pids_in_session, started
from sample_logs import begin, resumed_run, write_steps

from mpiadv import cli
from mpiadv.emulation.measurements import MEASUREMENTS, Measured, scenario_text
from mpiadv.forecast.job import ideal_speed_up
from mpiadv.process.errors import UserError
from mpiadv.report.drawing import style
from mpiadv.report.reading import read_log
from mpiadv.studies import speedup
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.results import Table, write_results
from mpiadv.studies.runs import request_of
from mpiadv.studies.speedup import Point, measured_in, measurements, scenario_of
from mpiadv.studies.speedup_figures import series_of

QUICK = ("study.ranks=[2]", "study.num_steps=40")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, needs_mpirun: None) -> Path:
    """The emulated study on one and two ranks."""
    folder = tmp_path_factory.mktemp("speedup") / "study"
    assert cli.main(["study", "speedup", "--preset", "smoke", "--output", str(folder), *QUICK]) == 0
    return folder


def test_study_measures_each_number_of_ranks_with_and_without_the_trainer_crafting(
    done: Path,
) -> None:
    rows = MEASUREMENTS.read(done / "speed.h5")
    kinds = [(row["ranks"], row["trainer_crafts"], row["repeat"]) for row in rows]
    assert kinds == [(1, 1, 0), (2, 1, 0), (2, 0, 0)]
    assert rows["first_staleness_worst"].tolist() == [16] * 3
    assert rows["last_staleness_worst"].tolist() == [4] * 3
    assert (rows["ticket_seconds"] > 0).all()
    assert rows["num_steps"].tolist() == [10, 20, 20]
    # It waits for the lone attacker for all but the eighth of the time in which it trains.
    assert rows["idle"][2] > 0.5
    with h5py.File(done / "speed.h5") as file:
        units = dict(file["measurements"].attrs)
    assert units["unit:ticket_seconds"] == "seconds: wall clock per ticket"
    assert set(units) == {f"unit:{name}" for name in rows.dtype.names or ()}


def test_study_leaves_tables_a_page_and_a_figure(done: Path) -> None:
    text, page = (done / "results.md").read_text(), (done / "results.html").read_text()
    assert "(figures/speedup.png)" in text and "## Runs" not in text
    assert (done / "figures/speedup.png").read_bytes().startswith(b"\x89PNG")
    assert (done / "figures/speedup.pdf").read_bytes().startswith(b"%PDF")
    assert page.count("<img") == 1 and "http" not in page
    assert "| 2 | " in text and "| under 2 |" in text


def test_only_what_is_missing_is_measured(done: Path, tmp_path: Path) -> None:
    folder = open_study(done, "speedup", *QUICK)
    assert speedup.measure(folder) == []
    again = open_study(tmp_path, "speedup", *QUICK)
    rows = MEASUREMENTS.read(done / "speed.h5")
    for row in rows[:2]:
        values = {name: row[name].item() for name in rows.dtype.names or ()}
        text = values.pop("scenario").decode()
        MEASUREMENTS.add(tmp_path / "speed.h5", [Measured(**values, scenario=text)])
    assert [job.name for job in speedup.measure(again)] == ["ranks2-trainer-waits-1"]
    longer = open_study(tmp_path / "longer", "speedup", "study.ranks=[2]", "study.num_steps=80")
    (tmp_path / "speed.h5").rename(tmp_path / "longer" / "speed.h5")
    assert len(speedup.measure(longer)) == 3, "measurements of another scenario do not count"
    assert len(measurements(longer)) == 0


def test_signal_ends_the_measuring_without_leaving_a_rank(
    needs_mpirun: None, tmp_path: Path
) -> None:
    words = ["speedup", "--preset", "smoke", "--output", str(tmp_path / "study"), "study.ranks=[2]"]
    line = [sys.executable, "-m", "mpiadv.cli", "study", *words, "study.num_steps=4000"]
    with started(line) as process:
        deadline = time.monotonic() + 180
        while len(pids_in_session(process.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(pids_in_session(process.pid)) >= 4, "study, launcher, mpirun and a rank"
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR1)
        completed = finished(process, timeout=60)
        left = pids_in_session(process.pid)
    assert completed.returncode == 75, completed.stdout + completed.stderr
    assert "interrupted: the same command goes on" in completed.stdout
    assert left == []


IDEALS = {
    "one_rank": (1, True, 1.0),
    "one_rank_crafts_always": (1, False, 1.0),
    "two_ranks_crafting": (2, True, 2.0),
    "two_ranks_one_of_them_crafting": (2, False, 168 / 148),
    "eight_ranks_crafting": (8, True, 8.0),
    "eight_ranks_seven_of_them_crafting": (8, False, 7 * 168 / 148),
    "nine_ranks_of_which_the_trainer_has_no_time_to_craft": (9, True, 8.4),
    "nine_ranks_eight_of_them_crafting": (9, False, 8.4),
}


@pytest.mark.parametrize(("ranks", "crafts", "ideal"), IDEALS.values(), ids=IDEALS)
def test_ideal_is_what_crafting_ranks_or_the_trainer_can_do(
    ranks: int, crafts: bool, ideal: float
) -> None:
    assert ideal_speed_up(ranks, 0.020, 0.148, trainer_crafts=crafts) == pytest.approx(ideal)


def made_up(folder: StudyFolder, point: Point, seconds: float, *, others: float = 0.0) -> None:
    scenario = scenario_of(folder.request, point)
    row = measured_in(read_log(folder.path / "sample"), point, 20)
    assert row is not None
    text = scenario_text(scenario)
    changed = replace(row, ticket_seconds=seconds, scenario=text, idle=0.1, others=others)
    MEASUREMENTS.add(folder.path / "speed.h5", [changed])


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of the smallest preset, with nothing measured, and a log to make rows of."""
    with begin(tmp_path / "sample") as log:
        write_steps(log, 0, 60)
    return open_study(tmp_path, "speedup", "study.repeats=3")


def test_results_tell_medians_and_spread_over_the_median_of_one_rank(folder: StudyFolder) -> None:
    for repeat, (alone, two) in enumerate([(1.0, 0.5), (1.2, 0.6), (0.9, 0.4)]):
        made_up(folder, Point(ranks=1, trainer_crafts=True, repeat=repeat), alone)
        made_up(folder, Point(ranks=2, trainer_crafts=True, repeat=repeat), two)
    (table, _) = [part for part in speedup.show(folder).parts if isinstance(part, Table)]
    assert table.rows[1] == ["2", "2.00 (1.67-2.50)", "2.00", "-", "1.17", "under 2"]


NUMBERS_MEASURED = {"nothing": [], "no_single_rank": [2, 3], "one_rank": [1], "some": [1, 3]}


@pytest.mark.parametrize("ranks", NUMBERS_MEASURED.values(), ids=NUMBERS_MEASURED)
def test_results_are_drawn_from_whatever_was_measured(
    folder: StudyFolder, ranks: list[int]
) -> None:
    for number in ranks:
        made_up(folder, Point(ranks=number, trainer_crafts=number == 1, repeat=0), 1.0 / number)
    with style():
        write_results(folder, speedup.show(folder))
    text = (folder.path / "results.md").read_text()
    assert ("nothing to compare" in text) == (1 not in ranks)
    assert ("(figures/speedup.png)" in text) == (1 in ranks)
    assert (folder.path / "figures" / "speedup.png").exists() == (1 in ranks)


@pytest.mark.parametrize(("others", "warns"), [(0.02, False), (0.6, True)])
def test_results_warn_where_other_programs_were_at_work(
    folder: StudyFolder, others: float, warns: bool
) -> None:
    made_up(folder, Point(ranks=1, trainer_crafts=True, repeat=0), 1.0, others=others)
    told = " ".join(speedup.show(folder).introduction)
    assert ("other programs took 60 % of this machine's cores" in told) == warns


def test_one_rank_belongs_to_both_lines() -> None:
    row = dict.fromkeys(Measured.__dataclass_fields__, 0) | {"scenario": ""}
    rows = MEASUREMENTS.rows(
        [Measured(**{**row, "ranks": n, "trainer_crafts": c}) for n, c in ((1, 1), (2, 1), (3, 0))]
    )
    assert list(series_of(rows, trainer_crafts=True).by_ranks) == [1, 2]
    assert list(series_of(rows, trainer_crafts=False).by_ranks) == [1, 3]


def test_real_work_is_measured_from_the_log_after_the_warm_up(folder: StudyFolder) -> None:
    point = Point(ranks=3, trainer_crafts=True, repeat=1)
    log = read_log(folder.path / "sample")
    measured = measured_in(log, point, 40)
    assert measured is not None
    assert measured.ticket_seconds == pytest.approx(0.5)
    assert measured.idle == pytest.approx(0.15 / 0.5)
    assert measured.parameter_wait == pytest.approx(0.1 / 0.5 / 2)
    assert (measured.train_seconds, measured.craft_seconds) == (0.1, 0.6)
    assert (measured.first_staleness_worst, measured.last_staleness_worst) == (16, 2)
    assert measured.first_staleness == np.mean(log.train["first_staleness"][12:52])
    assert measured_in(log, point, 49) is None


def test_pause_of_an_interrupted_run_does_not_count(tmp_path: Path) -> None:
    log = read_log(resumed_run(tmp_path))
    measured = measured_in(log, Point(ranks=1, trainer_crafts=True, repeat=0), 25)
    assert log.resumes == [25]
    assert measured is not None and measured.ticket_seconds == pytest.approx(0.5)


def test_real_runs_take_turns_alone_on_as_many_ranks_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speedup, "available_cores", lambda: 2)
    request = request_of("speedup", "small", PRESETS["small"], ["study.real=true"])
    runs = speedup.runs(request)
    names = ["ranks1-1", "ranks2-1", "ranks2-trainer-waits-1"]
    assert [run.name for run in runs] == names + [f"{name[:-1]}2" for name in names]
    assert [run.ranks for run in runs] == [1, 2, 2] * 2
    assert all(run.is_alone for run in runs)
    crafts = [run.overrides["staleness.trainer_crafts"] for run in runs]
    assert crafts == [True, True, False] * 2


REFUSED = {
    "deadlock": (["study.publish_every=9"], "publish_every=9 cannot hold final_staleness=4"),
    "too_many_ranks": (
        ["study.real=true", "study.ranks=[1024]"],
        r"study.ranks=\[1024\]: real work takes a core for each rank, and there are",
    ),
    "setting_without_effect": (
        ["model.name=mnist"],
        "model.name changes nothing where work is emulated: leave it out, or add study.real=true",
    ),
}


@pytest.mark.parametrize(("words", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        open_study(tmp_path / "study", "speedup", *words)
    assert not (tmp_path / "study").exists()


def test_damaged_measurements_are_refused_in_one_line(done: Path, tmp_path: Path) -> None:
    (tmp_path / "speed.h5").write_bytes((done / "speed.h5").read_bytes()[:500])
    words = ["speedup", "--preset", "smoke", "--output", str(tmp_path)]
    completed = subprocess.run(
        [sys.executable, "-m", "mpiadv.cli", "study", *words],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert completed.returncode == 2
    (line,) = completed.stderr.splitlines()
    assert "speed.h5 cannot be read as measurements" in line
    assert line.endswith("move it away, and they are made again")
