"""What the staleness study shows, from whatever logs there are."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_up_staleness import (
    FIGURES,
    NUM_STEPS,
    WORDS,
    MadeUp,
    drawn,
    picture_of,
    study,
    table_of,
    write_fresh,
    write_run,
)
from made_up_study import open_study
from sample_logs import begin

from mpiadv.report.drawing import Picture
from mpiadv.report.drawing import style as drawing_style
from mpiadv.report.reading import read_log
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.results import Results, Table, markdown
from mpiadv.studies.staleness_figures import rate_map
from mpiadv.studies.staleness_runs import (
    State,
    constant_run,
    finding_of,
    most_telling,
    read_findings,
)

FULL = {
    "s0": MadeUp(adversarial=0.84),
    "s4": MadeUp(adversarial=0.81),
    "s16": MadeUp(adversarial=0.04, period=20),
    "max16-final0": MadeUp(adversarial=0.82),
    "max16-final4": MadeUp(adversarial=0.80),
    "s0-rate0.02": MadeUp(adversarial=0.86),
    "s16-rate0.02": MadeUp(state=State.DIVERGED),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study with all its runs, one of them diverged."""
    return study(tmp_path_factory.mktemp("full"), FULL)


@pytest.fixture(scope="module")
def shown(full: StudyFolder) -> Results:
    return drawn(full)


def test_every_figure_is_drawn_with_its_table(shown: Results) -> None:
    assert [part.name for part in shown.parts if isinstance(part, Picture)] == FIGURES
    assert [part.title for part in shown.parts if isinstance(part, Table)] == [
        "Constant staleness", "Cycling of the perturbations", "Constant against refreshed attacks",
        "Staleness and learning rate",
    ]  # fmt: skip


def test_figure_8_holds_what_the_logs_say(shown: Results) -> None:
    (axis,) = picture_of(shown, "accuracy-by-staleness").figure.axes
    lines = {str(line.get_label()): line for line in axis.lines}
    np.testing.assert_allclose(lines["adversarial"].get_ydata(), [84, 81, 4])
    np.testing.assert_allclose(lines["natural"].get_ydata(), [96, 96, 96])
    assert list(lines["adversarial"].get_xdata()) == [0, 3, 5]  # 1 + log2(s), and 0
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "4", "16"]


def test_findings_name_what_is_harmless_and_what_collapses(shown: Results) -> None:
    told = " ".join(shown.introduction)
    assert "staleness 0 ends at 84.00 % adversarial and 96.00 % natural accuracy" in told
    assert "Staleness up to 4 costs at most 5 points." in told
    assert "At 16 it has collapsed: 4.00 % adversarial, 96.00 % natural." in told


def test_table_sets_the_papers_numbers_beside_ours_on_its_data_alone(
    shown: Results, tmp_path: Path
) -> None:
    on_digits = table_of(shown, "Constant staleness")
    assert on_digits.rows[1][:4] == ["4", "finished", "96.00", "81.00"]
    assert not any("paper" in told for told in (*on_digits.headings, on_digits.caption))
    folder = open_study(tmp_path, "staleness", *WORDS, "data.name=mnist")
    write_run(folder, "s4", MadeUp())
    table = table_of(drawn(folder), "Constant staleness")
    assert table.headings[-2:] == ["paper: natural", "paper: adversarial"]
    assert table.rows[1][:4] == ["4", "finished", "96.00", "80.00"]
    assert [row[-1] for row in table.rows] == ["89 to 91", "about 90", "about 90"]


def test_period_of_the_cycle_is_told_where_there_is_one(shown: Results) -> None:
    rows = {row[0]: row[3:] for row in table_of(shown, "Cycling of the perturbations").rows}
    assert rows["16"] == ["10", "-1.00", "20", "1.00", "1.2"]
    assert rows["0"] == rows["4"] == ["-"] * 5


def test_autocorrelation_shows_a_line_per_staleness_and_marks_the_cycle(shown: Results) -> None:
    steps, multiples = picture_of(shown, "autocorrelation").figure.axes
    labels = [line.get_label() for line in steps.lines if str(line.get_label()).startswith("s =")]
    assert labels == ["s = 0", "s = 4", "s = 16"]
    marks = {
        line.get_marker(): line.get_xdata()[0] for line in steps.lines if len(line.get_xdata()) == 1
    }
    assert marks == {"v": 10, "o": 20}
    assert {line.get_xdata()[0] for line in multiples.lines if line.get_marker() == "o"} == {1.25}


def test_strip_spreads_over_the_cycle_where_perturbations_cycle(shown: Results) -> None:
    figure = picture_of(shown, "perturbations").figure
    headings = [axis.get_title() for axis in figure.axes if axis.get_title()]
    steps = [int(heading) for heading in headings]
    assert steps[:10] == [1, 8, 14, 21, 27, 34, 40, 47, 53, 60]
    assert (steps[20], steps[29]) == (30, 60)  # a cycle and a half of 20 steps
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == [
        "s = 0", "s = 4", "s = 16",
    ]  # fmt: skip


def test_refreshed_attacks_end_in_constant_staleness(shown: Results) -> None:
    adversarial = picture_of(shown, "refreshed-attacks").figure.axes[0]
    lines = {str(line.get_label()): line for line in adversarial.lines}
    np.testing.assert_allclose(lines["first step: 16"].get_ydata(), [82, 80, 4])
    np.testing.assert_allclose(lines["constant"].get_ydata(), [84, 81, 4])
    assert table_of(shown, "Constant against refreshed attacks").rows == [
        ["16", "82.00 / 96.00", "80.00 / 96.00", "4.00 / 96.00"]
    ]


def test_map_gives_a_diverged_run_a_cell_of_its_own(shown: Results) -> None:
    figure = picture_of(shown, "staleness-and-learning-rate").figure
    assert [text.get_text() for text in figure.axes[0].texts] == ["86.0", "diverged", "84.0", "4.0"]
    assert table_of(shown, "Staleness and learning rate").rows == [
        ["0.005", "84.00 / 96.00", "4.00 / 96.00"], ["0.02", "86.00 / 96.00", "diverged"],
    ]  # fmt: skip


def test_stale_accuracy_is_set_against_tests_where_nothing_fresh_was_measured(
    shown: Results,
) -> None:
    picture = picture_of(shown, "stale-and-fresh")
    assert [axis.get_title() for axis in picture.figure.axes] == [
        "staleness 0", "staleness 4", "staleness 16",
    ]  # fmt: skip
    assert "attacked test images" in [line.get_label() for line in picture.figure.axes[0].lines]
    assert "attacked test images" in picture.caption


def test_fresh_accuracy_is_drawn_and_told_where_it_was_measured(tmp_path: Path) -> None:
    folder = study(tmp_path, {"s0": MadeUp()})
    accuracies = np.append(np.full(NUM_STEPS - 6, 0.5), np.full(6, 0.25))
    write_fresh(folder.folder_of("s0"), accuracies)
    results = drawn(folder)
    picture = picture_of(results, "stale-and-fresh")
    (line,) = [ln for ln in picture.figure.axes[0].lines if ln.get_label() == "fresh examples"]
    assert max(line.get_ydata()) == 50 and min(line.get_ydata()) == 25
    assert "attacked with the parameters of that step" in picture.caption
    stale, fresh = table_of(results, "Constant staleness").rows[0][4:6]
    expected = np.mean([step / (step + 20) for step in range(54, 60)])
    assert (stale, fresh) == (f"{100 * expected:.2f}", "25.00")


def test_unfinished_run_is_hollow_and_says_how_far_it_came(tmp_path: Path) -> None:
    folder = study(tmp_path, {"s0": MadeUp(), "s16": MadeUp(state=State.UNFINISHED)})
    results = drawn(folder)
    (axis,) = picture_of(results, "accuracy-by-staleness").figure.axes
    hollow = [line.get_xdata()[0] for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [5, 5]
    assert "Hollow marks" in picture_of(results, "accuracy-by-staleness").caption
    assert table_of(results, "Constant staleness").rows[2][1] == "after step 20"
    with drawing_style():
        drawn_map = rate_map(read_findings(folder))
    assert drawn_map is not None
    texts = [text.get_text() for text in drawn_map.figure.axes[0].texts]
    assert texts == ["80.0", "80.0\nafter 20"]


def damaged(folder: StudyFolder) -> None:
    (write_run(folder, "s4", MadeUp()) / "log.h5").write_bytes(b"\x89HDF\r\n\x1a\n no more")


def begun(folder: StudyFolder) -> None:
    begin(folder.folder_of("s4")).close()


def without_originals(folder: StudyFolder) -> None:
    with h5py.File(write_run(folder, "s4", MadeUp()) / "log.h5", "r+") as file:
        del file["snapshot_originals"]


def not_numbers(folder: StudyFolder) -> None:
    """Snapshots of a network that is on its way to divergence."""
    with h5py.File(write_run(folder, "s4", MadeUp()) / "log.h5", "r+") as file:
        rows = file["snapshots"][:]
        rows["images"][5:] = np.nan
        file["snapshots"][:] = rows


def no_evaluation(folder: StudyFolder) -> None:
    with h5py.File(write_run(folder, "s4", MadeUp()) / "log.h5", "r+") as file:
        file["evaluation"].resize(0, axis=0)


AWKWARD = {
    "nothing_run": lambda folder: None,
    "one_run": lambda folder: write_run(folder, "s4", MadeUp()),
    "one_diverged": lambda folder: write_run(folder, "s0", MadeUp(state=State.DIVERGED)),
    "damaged_log": damaged,
    "just_begun": begun,
    "snapshots_without_originals": without_originals,
    "snapshots_not_finite": not_numbers,
    "no_evaluation": no_evaluation,
    "only_another_rate": lambda folder: write_run(folder, "s16-rate0.02", MadeUp()),
    "only_refreshed": lambda folder: write_run(folder, "max16-final4", MadeUp()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_whatever_logs_there_are_are_shown(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpiadv.report.drawing.DOTS_PER_INCH", 50)
    folder = open_study(tmp_path, "staleness", *WORDS)
    make(folder)
    results = drawn(folder)
    for part in results.parts:
        if isinstance(part, Picture):
            part.figure.canvas.draw()
    assert "| 4 |" in markdown(results.title, results.introduction, results.parts)


def test_long_run_is_drawn_beside_what_the_short_one_reached(tmp_path: Path) -> None:
    words = [*WORDS, "study.long=true", "study.long_staleness=16"]
    folder = open_study(tmp_path, "staleness", *words)
    for name, made_up in {**FULL, "s16-long": MadeUp(adversarial=0.4)}.items():
        write_run(folder, name, made_up)
    results = drawn(open_study(tmp_path, "staleness", *WORDS, "study.long_staleness=16"))
    picture = picture_of(results, "long-training")
    assert picture.caption.startswith("60 of 120 training steps at staleness 16.")
    assert any(
        "at staleness 16 reached 40.00 % adversarial accuracy after 60 steps, after 4.00 %" in words
        for words in results.introduction
    )


def test_run_that_diverged_is_told_from_its_log_alone(tmp_path: Path) -> None:
    folder = study(tmp_path, {"s4": MadeUp(state=State.DIVERGED)})
    run = constant_run(folder.request.config, 4)
    found = finding_of(run, read_log(folder.folder_of("s4")))
    assert found.state is State.DIVERGED and np.isnan(found.adversarial)
    assert most_telling({4: found}) == [4]
