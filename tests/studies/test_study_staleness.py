"""The staleness study: which runs it has, where robustness ends, and the smoke study, run."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_up_staleness import FIGURES, MadeUp, write_run
from made_up_study import open_study

from mpiadv.report.reading import read_log
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.runs import Run, request_of
from mpiadv.studies.staleness import STALENESS
from mpiadv.studies.staleness_runs import Finding, Limits, State, limits, snapshot_every


def test_runs_that_figures_share_are_trained_once() -> None:
    request = request_of("staleness", "small", PRESETS["small"], [])
    runs = {run.name: run for run in STALENESS.runs(request)}
    ranges = request.ranges
    refreshed = len(ranges["max_staleness"]) * len(ranges["final_staleness"])
    other_rates = (len(ranges["learning_rates"]) - 1) * len(ranges["map_staleness"])
    assert len(runs) == len(ranges["staleness"]) + refreshed + other_rates
    assert not any(name.endswith("-rate0.001") for name in runs)
    for name, run in runs.items():
        assert run.overrides["staleness.publish_every"] == 1 and run.ranks == 1
        largest, final = (run.overrides[f"staleness.{end}_staleness"] for end in ("max", "final"))
        assert (largest == final) == name.startswith("s")
    assert runs["s16-rate0.0003"].overrides["optimizer.learning_rate"] == 3e-4
    assert runs["max64-final8"].overrides["staleness.final_staleness"] == 8


def test_learning_rate_of_the_runs_can_be_chosen() -> None:
    words = ["optimizer.learning_rate=0.0003", "training.num_steps=700"]
    request = request_of("staleness", "small", PRESETS["small"], words)
    assert {"s4", "s4-rate0.001"} <= {run.name for run in STALENESS.runs(request)}
    assert "s4-rate0.0003" not in {run.name for run in STALENESS.runs(request)}


def test_long_run_goes_into_the_folder_of_the_short_ones(tmp_path: Path) -> None:
    write_run(open_study(tmp_path, "staleness"), "s0", MadeUp())
    folder = open_study(tmp_path, "staleness", "study.long=true")
    long = folder.runs[-1]
    assert long.name == "s8-long" and folder.config_of(long).training.num_steps == 120
    assert open_study(tmp_path, "staleness").runs == folder.runs[:-1]


SNAPSHOTS = {
    "synchronous": (1500, 0, 25),
    "little": (1500, 2, 8),
    "so_that_a_cycle_is_seen": (1500, 32, 16),
    "so_that_a_cycle_is_seen_in_a_long_run": (60000, 64, 32),
    "not_too_many_in_a_long_run": (60000, 2, 30),
    "much": (1500, 256, 25),
    "few_steps": (30, 4, 1),
}


@pytest.mark.parametrize(("num_steps", "staleness", "every"), SNAPSHOTS.values(), ids=SNAPSHOTS)
def test_snapshots_are_dense_enough_for_cycles_and_few(
    num_steps: int, staleness: int, every: int
) -> None:
    assert snapshot_every(num_steps, staleness) == every


def finding(adversarial: float, natural: float = 0.96, state: State = State.FINISHED) -> Finding:
    return Finding(
        run=Run(name="s", overrides={}), log=None, state=state, natural=natural,
        adversarial=adversarial, step=60, num_images=500,
    )  # fmt: skip


NAN = float("nan")
DIVERGED = finding(NAN, NAN, State.DIVERGED)
LIMITS: dict[str, tuple[dict[int, Finding], Limits | None]] = {
    "as_in_the_paper": (
        {0: finding(0.9), 1: finding(0.91), 32: finding(0.86), 64: finding(0.05)},
        Limits(reference=0, harmless=32, collapsed=64, unlearnt=()),
    ),
    "harm_without_collapse": (
        {0: finding(0.8), 1: finding(0.76), 2: finding(0.7), 4: finding(0.5)},
        Limits(reference=0, harmless=1, collapsed=None, unlearnt=()),
    ),
    "what_recovers_is_not_harmless_throughout": (
        {0: finding(0.9), 1: finding(0.89), 2: finding(0.7), 4: finding(0.88)},
        Limits(reference=0, harmless=1, collapsed=None, unlearnt=()),
    ),
    "nothing_to_lose": ({0: finding(0.0), 1: finding(0.0)}, None),
    "chance_after_the_collapse": (
        {0: finding(0.8), 2: finding(0.1), 4: finding(0.79)},
        Limits(reference=0, harmless=None, collapsed=2, unlearnt=()),
    ),
    "nothing_learnt_is_no_collapse": (
        {
            0: finding(0.8),
            4: finding(0.1, natural=0.11),
            8: finding(0.78),
            16: finding(0.0),
        },
        Limits(reference=0, harmless=8, collapsed=16, unlearnt=(4,)),
    ),
    "diverged": (
        {0: finding(0.8), 4: finding(0.8), 8: DIVERGED},
        Limits(reference=0, harmless=4, collapsed=8, unlearnt=()),
    ),
    "unfinished_does_not_count": (
        {0: finding(0.8), 4: finding(0.1, state=State.UNFINISHED), 8: finding(0.8)},
        Limits(reference=0, harmless=8, collapsed=None, unlearnt=()),
    ),
    "synchronous_one_unfinished": ({0: finding(0.8, state=State.UNFINISHED)}, None),
    "synchronous_one_diverged": ({0: DIVERGED, 4: finding(0.8)}, None),
}


@pytest.mark.parametrize(("constant", "expected"), LIMITS.values(), ids=LIMITS)
def test_where_robustness_ends(constant: dict[int, Finding], expected: Limits | None) -> None:
    assert limits(constant) == expected


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study, really run."""
    path = tmp_path_factory.mktemp("smoke") / "study"
    _study_command(path)
    return path


def _study_command(path: Path) -> str:
    words = ["study", "staleness", "--preset", "smoke", "--jobs", "2", "--output", str(path)]
    completed = subprocess.run(
        [sys.executable, "-m", "mpiadv.cli", *words], capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def test_smoke_study_writes_every_figure_and_table(smoke: Path) -> None:
    names = sorted(path.name for path in (smoke / "figures").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))
    written = (smoke / "results.md").read_text()
    assert all(f"](figures/{name}.png)" in written for name in FIGURES)
    assert "not run" not in written


def test_smoke_study_trains_at_the_staleness_it_says(smoke: Path) -> None:
    for name, first, last in (("s0", 0, 0), ("s8", 8, 8), ("max8-final0", 8, 0)):
        rows = read_log(smoke / "runs" / name).train
        assert set(rows["first_staleness"][8:]) == {first}
        assert set(rows["last_staleness"][8:]) == {last}


def test_what_is_done_is_not_done_again(smoke: Path) -> None:
    told = _study_command(smoke)
    assert told.count("done before") == 3 and "started" not in told
