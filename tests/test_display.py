"""What is shown while a run goes on."""

import io

import pytest

from mpiadv.engine.display import TERMINAL_WIDTH, Display
from mpiadv.engine.records import Provenance, StepRecord
from mpiadv.engine.work import Outcome


def record(step: int) -> StepRecord:
    origin = Provenance(
        rank=1,
        first_version=max(0, step - 4),
        last_version=max(0, step - 1),
        num_steps=8,
        epsilon=0.3,
        craft_seconds=0.1,
        parameter_wait_seconds=0.0,
        trainer_wait_seconds=0.0,
        grant_wait_seconds=0.0,
        gradient_magnitude=1.0,
        natural_accuracy=0.9,
    )
    return StepRecord(
        step=step,
        ticket=step,
        origin=origin,
        outcome=Outcome(loss=1.25, accuracy=0.5, learning_rate=0.1),
        own_craft_seconds=0.0,
        wait_seconds=0.1,
        train_seconds=0.4,
        publish_seconds=0.0,
        total_seconds=0.5,
    )


def shown(num_steps: int, *, seconds: float) -> str:
    """What 20 steps, `seconds` apart, show before the display is closed."""
    stream, now = io.StringIO(), [0.0]
    display = Display(first_step=0, num_steps=num_steps, stream=stream, clock=lambda: now[0])
    for step in range(20):
        now[0] += seconds
        display.step(record(step))
    text = stream.getvalue()
    display.close()
    return text


def test_bar_moves_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMINAL_WIDTH, "150")
    text = shown(50, seconds=0.5)
    assert all(f"{done}/50" in text for done in (1, 10, 20))
    assert "2.0 steps/s  loss 1.250  natural 90.0 %  adversarial 50.0 %" in text
    assert "staleness 4 to 1  trainer waits 20.0 %  left 0:15" in text


def test_bar_is_drawn_a_few_times_a_second_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMINAL_WIDTH, "150")
    assert shown(50, seconds=0.009).count("loss") == 0


def test_plain_output_gets_the_first_step_and_then_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TERMINAL_WIDTH, raising=False)
    lines = shown(50, seconds=1.0).splitlines()
    assert [line.split()[1] for line in lines] == ["1/50", "12/50"]
