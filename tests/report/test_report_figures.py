"""Figures draw what the log holds, against its bounds; its time is told apart by rank and use."""

from pathlib import Path

import numpy as np
import pytest
from sample_logs import BEGAN, NUM_STEPS, STEP_SECONDS, begin, finished_run, fresh_row, train_row

from mpiadv.report.reading import read_log
from mpiadv.report.series import (
    OTHER,
    attacker_seconds,
    in_blocks,
    recent_rate,
    row_seconds,
    seconds_left,
    tickets_by_rank,
    trainer_seconds,
)
from mpiadv.report.staleness import fresh, staleness
from mpiadv.report.training import training


def test_resumes_are_vertical_lines(runs: Path) -> None:
    picture = training(read_log(runs / "resumed"))
    assert picture is not None
    for axis in picture.figure.axes[:2]:
        (line,) = [line for line in axis.lines if line.get_label() == "resumed"]
        assert list(line.get_xdata()) == [25, 25]
    assert "resumed" in picture.caption


def test_scale_of_the_loss_begins_at_zero_and_holds_every_value(runs: Path) -> None:
    log = read_log(runs / "resumed")
    picture = training(log)
    assert picture is not None
    bottom, top = picture.figure.axes[0].get_ylim()
    assert bottom == 0 and top >= log.column("loss").max()


def test_staleness_is_drawn_against_the_bounds_of_the_configuration(tmp_path: Path) -> None:
    bounds = {"max_staleness": 40, "final_staleness": 7}
    picture = staleness(read_log(finished_run(tmp_path / "run", staleness=bounds)))
    assert picture is not None
    over, histogram = picture.figure.axes
    assert {line.get_ydata()[0] for line in over.lines if line.get_linestyle() == ":"} == {40, 7}
    assert {line.get_xdata()[0] for line in histogram.lines} == {40.5, 7.5}
    assert "max_staleness 40, final_staleness 7" in picture.caption


def test_fresh_batches_are_drawn_beside_the_stale_ones_in_the_order_of_steps(
    tmp_path: Path,
) -> None:
    with begin(tmp_path / "run", objective={"clean_fraction": 0.5}) as log:
        for step in (8, 0, 4, 900):  # as they come in; the last one was not trained on yet
            log.fresh(fresh_row(step))
        for step in range(10):
            log.train(train_row(step))
    picture = fresh(read_log(tmp_path / "run"))
    assert picture is not None
    for axis in picture.figure.axes:
        lines = {line.get_label(): line for line in axis.lines}
        for label in ("stale", "fresh"):
            assert list(lines[label].get_xdata()) == [0, 4, 8]
    accuracy = {line.get_label(): line.get_ydata() for line in picture.figure.axes[0].lines}
    np.testing.assert_allclose(accuracy["fresh"], accuracy["stale"] / 2)
    assert "3 batches" in picture.caption and "losses do not compare" in picture.caption


def test_time_between_interruption_and_resume_counts_nowhere(runs: Path) -> None:
    log = read_log(runs / "resumed")
    np.testing.assert_allclose(row_seconds(log), STEP_SECONDS)
    spent = {name: seconds.sum() for name, seconds in trainer_seconds(log).items()}
    expected = {"training": 4.0, "crafting": 8.0, "waiting": 6.0, "publishing": 0.4, OTHER: 1.6}
    assert spent == pytest.approx(expected)
    assert recent_rate(log) == pytest.approx(1 / STEP_SECONDS)
    assert seconds_left(log) == pytest.approx((NUM_STEPS - 40) * STEP_SECONDS)


def test_tickets_and_attackers_time_are_counted_by_rank(runs: Path) -> None:
    log = read_log(runs / "finished")
    assert tickets_by_rank(log) == {0: 20, 1: 20, 2: 20}
    assert attacker_seconds(log)[2] == pytest.approx(
        {
            "crafting": 12.0,
            "waiting for parameters on their way": 2.0,
            "waiting for the trainer": 4.0,
            "waiting for tickets": 2.0,
        }
    )


def test_clock_set_back_gives_no_negative_time(tmp_path: Path) -> None:
    with begin(tmp_path / "run") as log:
        for step, moment in enumerate((1.0, 2.0, -50.0, -49.0)):
            log.train(train_row(step, wall_clock=BEGAN + moment))
    assert row_seconds(read_log(tmp_path / "run")).tolist() == [1.0, 1.0, 0.0, 1.0]


def test_blocks_average_what_is_known() -> None:
    blocks = in_blocks(np.arange(7), [1, np.nan, 3, np.nan, np.nan, np.inf, 8], width=3)
    np.testing.assert_array_equal(blocks.mean, [2, np.nan, 8])
    np.testing.assert_array_equal(blocks.steps, [1, 4, 6])
