"""The headline: a small real study, and what it computes of made-up logs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_study import open_study
from sample_logs import BEGAN, STEP_SECONDS, begin, evaluation_row, resumed_run, train_row

from mpiadv import cli
from mpiadv.emulation.measurements import MEASUREMENTS, Measured, scenario_text
from mpiadv.process.errors import UserError
from mpiadv.report.drawing import style
from mpiadv.report.reading import read_log
from mpiadv.studies import headline
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.headline import (
    ASYNCHRONOUS,
    LABELS,
    common_accuracy,
    reached,
    step_seconds,
    usual_step_seconds,
)
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.results import Results, Table, write_results
from mpiadv.studies.runs import request_of


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, needs_mpirun: None) -> Path:
    """The smoke study."""
    folder = tmp_path_factory.mktemp("headline") / "study"
    assert cli.main(["study", "headline", "--preset", "smoke", "--output", str(folder)]) == 0
    return folder


def test_study_trains_three_networks_and_emulates_more_ranks(done: Path) -> None:
    logs = {name: read_log(done / "runs" / name) for name in LABELS}
    assert [log.num_steps for log in logs.values()] == [40] * 3
    assert [log.train["attack_steps"][-1] for log in logs.values()] == [40, 8, 8]
    assert [log.ranks[0] for log in logs.values()][:2] == [1, 1]
    assert logs[ASYNCHRONOUS].ranks[0] >= 2
    assert [log.train["first_staleness"].max() for log in logs.values()] == [0, 0, 16]
    (row,) = MEASUREMENTS.read(done / "speed.h5")
    assert row["ranks"] == 3 and row["last_staleness_worst"] == 2
    scenario = json.loads(row["scenario"])
    model = done / "runs" / ASYNCHRONOUS / "model.pt"
    assert scenario["num_attack_steps"] == 7, "the trainer runs the eighth"
    assert 0 < scenario["num_parameters"] * 4 <= model.stat().st_size


def test_study_leaves_tables_a_page_and_a_figure(done: Path) -> None:
    text, page = (done / "results.md").read_text(), (done / "results.html").read_text()
    assert "(figures/headline.png)" in text
    assert (done / "figures/headline.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("<img") == 1 and "http" not in page
    for told in ("| k = 40, synchronous, 1 rank |", "3 ranks, emulated |", "26, 8 GPUs"):
        assert told in text


def test_finished_study_has_nothing_left_to_measure(done: Path) -> None:
    folder = open_study(done, "headline")
    assert all(folder.is_done(run.name) for run in folder.runs)
    assert headline.measure(folder) == []


def write_run(
    path: Path, seconds: float, accuracies: Sequence[float], *, evaluation_seconds: float = 7.0
) -> None:
    """A run of steps of `seconds` each, with an evaluation after every ten of them."""
    with begin(path) as log:
        now = BEGAN
        for step in range(10 * len(accuracies)):
            now += seconds
            log.train(train_row(step, wall_clock=now))
            if (step + 1) % 10 == 0:
                row = evaluation_row(step + 1)
                accuracy = accuracies[step // 10]
                log.evaluation(
                    replace(row, adversarial_accuracy=accuracy, seconds=evaluation_seconds)
                )
                now += evaluation_seconds
        log.event("end", "hash 12", 10 * len(accuracies))


def test_time_of_evaluations_does_not_count(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5, [0.1, 0.2, 0.3])
    log = read_log(tmp_path)
    assert step_seconds(log) == pytest.approx([0.5] * 30)
    assert usual_step_seconds(log) == pytest.approx(0.5)


def test_step_after_a_resume_keeps_its_time(tmp_path: Path) -> None:
    log = read_log(resumed_run(tmp_path))
    seconds = step_seconds(log)
    assert log.evaluation["step"].tolist() == [20, 40] and log.resumes == [25]
    # The made-up evaluation of two seconds stands in a log whose steps leave no time for it.
    assert seconds[20] == 0.0
    assert seconds[25] == pytest.approx(STEP_SECONDS)


def test_usual_time_of_steps_that_are_slow_and_quick_in_turn_is_their_mean(tmp_path: Path) -> None:
    with begin(tmp_path) as log:
        for step in range(60):
            moment = BEGAN + step // 2 + (1.0 if step % 2 else 0.1)
            log.train(train_row(step, wall_clock=moment))
    assert usual_step_seconds(read_log(tmp_path)) == pytest.approx(0.5, rel=0.1)


ACCURACIES = {"slow": [0.1, 0.5, 0.7, 0.8], "quick": [0.4, 0.75, 0.7, 0.7]}


def test_accuracy_compared_at_is_the_highest_that_all_reached(tmp_path: Path) -> None:
    for name, accuracies in ACCURACIES.items():
        write_run(tmp_path / name, 0.5, accuracies)
    logs = [read_log(tmp_path / name) for name in ACCURACIES]
    assert common_accuracy(logs) == 0.75
    assert common_accuracy([]) == 0.0
    found = [reached(log, 0.75) for log in logs]
    assert [(there.num_steps, there.seconds) for there in found if there] == [
        (40, 20.0),
        (20, 10.0),
    ]
    assert reached(logs[1], 0.76) is None
    assert reached(logs[0], 0.0) is None, "nothing was reached that is to be compared"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """The smallest study, nothing trained."""
    return open_study(tmp_path / "study", "headline")


def finish(folder: StudyFolder, *names: str) -> None:
    """Runs that take 1, 0.25 and 0.125 seconds per step."""
    for name in names:
        seconds = dict(zip(LABELS, (1.0, 0.25, 0.125), strict=True))[name]
        path = folder.folder_of(name)
        write_run(path, seconds, [0.2, 0.6, 0.75, 0.8])
        (path / "model.pt").write_bytes(bytes(4000))
        (path / "DONE").write_text("done\n")


def tables(results: Results) -> list[Table]:
    return [part for part in results.parts if isinstance(part, Table)]


def test_table_compares_with_forty_steps_on_one_rank(folder: StudyFolder) -> None:
    finish(folder, *LABELS)
    (speed, paper) = tables(headline.show(folder))
    assert speed.headings[3] == "steps to 80.00 %"
    assert [row[1:6] for row in speed.rows] == [
        ["1000.0", "1.00", "40", "40.0 s", "1.00"],
        ["250.0", "4.00", "40", "10.0 s", "4.00"],
        ["125.0", "8.00", "40", "5.0 s", "8.00"],
    ]
    assert [row[1] for row in paper.rows] == ["4.00", "2.00", "8.00"]


def test_accuracy_to_compare_at_can_be_given(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "headline", "study.accuracy=60")
    finish(folder, *LABELS)
    (speed, _) = tables(headline.show(folder))
    assert speed.headings[3] == "steps to 60.00 %"
    assert [row[3] for row in speed.rows] == ["20"] * 3


def test_emulated_ranks_take_the_steps_of_the_asynchronous_run(folder: StudyFolder) -> None:
    finish(folder, *LABELS)
    (job,) = headline.measure(folder)
    assert job.name == "emulated-ranks3"
    scenario = headline.emulated(folder)
    assert scenario is not None
    assert (scenario.train_seconds, scenario.craft_seconds) == (0.1, 0.6)
    blank = dict.fromkeys(Measured.__dataclass_fields__, 0)
    row = {**blank, "ranks": 3, "ticket_seconds": 0.05, "scenario": scenario_text(scenario)}
    MEASUREMENTS.add(folder.path / "speed.h5", [Measured(**row)])
    assert headline.measure(folder) == []
    (speed, paper) = tables(headline.show(folder))
    assert speed.rows[3][0] == "k = 8, asynchronous, 3 ranks, emulated"
    assert speed.rows[3][1:6] == ["50.0", "20.00", "40", "2.0 s", "20.00"]
    assert paper.rows[-1][1:] == ["20.00", "26, 8 GPUs: 4 hours to 9 minutes"]


BEGUN = {"none": [], "first": ["k40-synchronous"], "last": [ASYNCHRONOUS]}


@pytest.mark.parametrize("names", BEGUN.values(), ids=BEGUN)
def test_results_are_drawn_from_the_runs_there_are(folder: StudyFolder, names: list[str]) -> None:
    finish(folder, *names)
    with style():
        write_results(folder, headline.show(folder))
    text = (folder.path / "results.md").read_text()
    assert "Not all runs have begun." in text
    assert ("(figures/headline.png)" in text) == bool(names)


def test_run_without_evaluations_is_drawn_too(folder: StudyFolder) -> None:
    finish(folder, "k8-synchronous")
    with begin(folder.folder_of("k40-synchronous")) as log:
        log.train(train_row(0))
    with style():
        write_results(folder, headline.show(folder))
    text = (folder.path / "results.md").read_text()
    assert "| k = 40, synchronous, 3 ranks |" in text and "steps to the same accuracy" in text


def test_asynchronous_run_takes_all_cores_and_every_run_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(headline, "available_cores", lambda: 6)
    runs = headline.runs(request_of("headline", "small", PRESETS["small"], []))
    assert [run.ranks for run in runs] == [1, 1, 6]
    assert all(run.is_alone for run in runs)


def test_single_asynchronous_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study.ranks=1: the asynchronous run needs a rank"):
        open_study(tmp_path, "headline", "study.ranks=1")
