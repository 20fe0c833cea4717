"""What is shown while a run goes on."""

import io
import re

import pytest
from made_records import made
from rich.console import Console

from mpiadv.contract.accounts import StepRecord
from mpiadv.evaluation.survivors import Progress as Place
from mpiadv.examination.follow import Follower
from mpiadv.session.display import TERMINAL_WIDTH, Display


def record(step: int) -> StepRecord:
    return made(
        StepRecord, step=step, ticket=step, rank=1, first_version=max(0, step - 4),
        last_version=max(0, step - 1), loss=1.25, accuracy=0.5, natural_accuracy=0.9,
        wait_seconds=0.1, total_seconds=0.5,
    )  # fmt: skip


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
    words = (
        "20/50  left 0:15  loss 1.250  adversarial 50.0 %  2.0 steps/s  natural 90.0 %  "
        "staleness 4 to 1  trainer waits 20.0 %"
    )
    assert words in text


def test_long_evaluation_tells_now_and_then_how_much_is_left() -> None:
    stream, now = io.StringIO(), [0.0]
    display = Display(first_step=0, num_steps=5, stream=stream, clock=lambda: now[0])
    tell = display.evaluation()
    for done in range(1, 11):
        now[0] += 6.0
        tell(done, 10)
    display.close()
    lines = [line for line in stream.getvalue().splitlines() if "evaluated" in line]
    assert lines == [
        "evaluated 2 of 10 batches  left 0:48",
        "evaluated 4 of 10 batches  left 0:36",
        "evaluated 6 of 10 batches  left 0:24",
        "evaluated 8 of 10 batches  left 0:12",
    ]


def test_bar_is_drawn_a_few_times_a_second_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMINAL_WIDTH, "150")
    assert shown(50, seconds=0.009).count("loss") == 0


def test_plain_output_gets_the_first_step_and_then_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TERMINAL_WIDTH, raising=False)
    lines = shown(50, seconds=1.0).splitlines()
    assert [line.split()[1] for line in lines] == ["1/50", "12/50"]


MOST = ("loss 1.250", "adversarial 50.0 %", "2.0 steps/s", "natural 90.0 %")
WIDTHS = {
    30: (),
    60: ("loss 1.250",),
    80: ("loss 1.250", "adversarial 50.0 %"),
    100: ("loss 1.250", "adversarial 50.0 %", "2.0 steps/s"),
    120: MOST,
    160: (*MOST, "staleness 4 to 1", "trainer waits 20.0 %"),
}


@pytest.mark.parametrize("width", WIDTHS)
def test_bar_step_of_total_and_time_left_fit_into_any_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv(TERMINAL_WIDTH, str(width))
    line = _last_line(shown(60000, seconds=0.5))
    bar, rest = line[: len(line) - len(line.lstrip("━╸╺"))], line.lstrip("━╸╺ ")
    assert rest.split("  ") == ["20/60000", "left 8:19:50", *WIDTHS[width]]
    assert len(line) <= width
    assert len(bar) >= 5


def test_bar_of_an_evaluation_keeps_batch_and_time_left() -> None:
    stream, now = io.StringIO(), [0.0]
    console = Console(file=stream, force_terminal=True, width=60, _environ={})
    with Follower(console, num_ranks=4, clock=lambda: now[0]) as follow:
        for batch in range(3):
            follow(Place(batch=batch, num_batches=9, title="pgd-40", number=1, num_standing=200))
            now[0] += 10.0
    line = _last_line(stream.getvalue())
    assert line.lstrip("━╸╺ ") == "batch 3/9  left 1:10  pgd-40, try 2"


def _last_line(text: str) -> str:
    """What a terminal shows in its last line that is not empty."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    return [line.rstrip() for line in plain.split("\n") if line.strip()][-1]
