"""Studies power and transfer: real ones on digits, and what they show of made-up scores."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from made_up_study import add, finish_runs, open_study, score_row
from mpi_runner import HERE

from mpiadv.evaluation import evaluate
from mpiadv.report.drawing import Picture, style
from mpiadv.studies import power, transfer
from mpiadv.studies.results import Results, Table, runs_table, write_results
from mpiadv.studies.score import Networks, attack_of
from mpiadv.studies.scores import read_scores

CLI = [sys.executable, "-m", "mpiadv.cli", "study"]


def study(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *words, "--preset", "smoke", "--jobs", "2", "--output", str(folder)],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both studies, done: `power` and `transfer`, which took the runs of `power`."""
    folder = tmp_path_factory.mktemp("studies")
    first = study(folder / "power", "power")
    assert first.returncode == 0, first.stdout + first.stderr
    second = study(folder / "transfer", "transfer", "--reuse", str(folder / "power"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "k4: taken from" in second.stdout and "started" not in second.stdout
    return folder


FILES = {
    "power": ["power-training", "power-accuracy", "power-loss"],
    "transfer": ["transfer"],
}


@pytest.mark.parametrize("name", FILES)
def test_study_leaves_tables_a_page_and_figures(done: Path, name: str) -> None:
    text = (done / name / "results.md").read_text()
    page = (done / name / "results.html").read_text()
    for figure in FILES[name]:
        assert f"(figures/{figure}.png)" in text
        assert (done / name / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (done / name / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")
    assert page.count("<img") == len(FILES[name]) and "http" not in page
    assert "| k4 | finished | 60 of 60 |" in text
    with h5py.File(done / name / "scores.h5") as file:
        assert len(file["scores"]) == {"power": 12, "transfer": 6}[name]


def test_same_command_again_does_nothing_twice(done: Path) -> None:
    model = done / "power" / "runs" / "k4" / "model.pt"
    before = model.stat().st_mtime_ns, read_scores(done / "power" / "scores.h5").tobytes()
    again = study(done / "power", "power")
    assert again.returncode == 0
    assert again.stdout.count("done before, natural") == 2
    assert "scoring" not in again.stdout
    assert before == (model.stat().st_mtime_ns, read_scores(done / "power/scores.h5").tobytes())


def test_white_box_scores_are_those_of_evaluation(done: Path) -> None:
    networks = Networks(folders={"k4": str(done / "power" / "runs" / "k4")}, trusted=())
    network = networks.get("k4")
    (counts,) = evaluate(
        [network.model], networks.data.test, attack_of(network.config, 2),
        seed=0, num_samples=100, batch_size=500, precision="float32",
    )  # fmt: skip
    (row,) = [
        row
        for row in read_scores(done / "power" / "scores.h5")
        if (row["target"], row["attack_steps"], row["split"]) == (b"k4", 2, b"test")
    ]
    assert 100 * row["adversarial_accuracy"] == counts.adversarial_accuracy
    assert row["adversarial_loss"] == counts.adversarial_loss
    assert 100 * row["natural_accuracy"] == counts.natural_accuracy
    assert row["step_size"] == pytest.approx(2.5 * 0.15 / 2)
    assert row["target_hash"].decode() == network.hash


def test_transferred_scores_agree_where_studies_overlap(done: Path) -> None:
    def own(path: Path) -> dict[Any, Any]:
        return {
            (row["target"], row["attack_steps"]): row["adversarial_loss"]
            for row in read_scores(path)
            if row["split"] == b"test" and row["target"] == row["source"]
        }

    powers, transfers = own(done / "power" / "scores.h5"), own(done / "transfer" / "scores.h5")
    assert set(transfers) == {(b"k1", 1), (b"k1", 4), (b"k4", 4)}
    assert transfers.items() <= powers.items()


def test_interrupted_study_goes_on_with_the_same_command(tmp_path: Path) -> None:
    words = ["power", "study.training_steps=[4]", "study.attack_steps=[1]", "--preset", "smoke",
             "training.num_steps=150", "checkpoint.every_steps=0",
             "--output", str(tmp_path)]  # fmt: skip
    with subprocess.Popen([*CLI, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "k4 (1 of 1): started\n"
        _wait_for_step(tmp_path / "runs" / "k4.txt")
        process.terminate()
        told = process.stdout.read()
        assert process.wait(60) == 75, told
    assert "interrupted: the same command goes on" in told
    assert list((tmp_path / "runs" / "k4" / "checkpoints").iterdir())
    assert not (tmp_path / "results.md").exists()
    resumed = subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "going on from" in (tmp_path / "runs" / "k4.txt").read_text()


def _wait_for_step(output: Path) -> None:
    for _ in range(18000):
        if output.exists() and "step 30:" in output.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"{output} shows no training step")


def tables(results: Results) -> dict[str, Table]:
    return {part.title: part for part in results.parts if isinstance(part, Table)}


def pictures(results: Results) -> list[str]:
    return [part.name for part in results.parts if isinstance(part, Picture)]


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("mpiadv.report.drawing.DOTS_PER_INCH", 50)
    with style():
        yield


POWER = {
    # accuracy under 1, 2 and 4 steps, by the steps in training
    "shattered_under_stronger": ({1: (0.99, 0.6, 0.3), 4: (0.93, 0.92, 0.91)}, "k = 1.", "k = 4."),
    "shattered_under_weaker": ({1: (0.9, 0.88, 0.87), 4: (0.5, 0.9, 0.99)}, "k = 4.", "k = 1."),
    "five_points_are_not_enough": ({1: (0.95, 0.92, 0.9), 4: (0.9, 0.9, 0.9)}, "", "k = 1, 4."),
    "all_shattered": ({1: (0.95, 0.92, 0.89), 4: (0.1, 0.9, 0.9)}, "k = 1, 4.", ""),
}


@pytest.mark.parametrize(
    ("curves", "shattered", "sound"), [pytest.param(*case, id=name) for name, case in POWER.items()]
)
def test_shattered_gradients_are_marked(
    tmp_path: Path, curves: dict[int, tuple[float, ...]], shattered: str, sound: str
) -> None:
    folder = open_study(tmp_path, "power")
    finish_runs(folder)
    for k, accuracies in curves.items():
        for steps, accuracy in zip((1, 2, 4), accuracies, strict=True):
            add(folder, score_row(f"k{k}", f"k{k}", attack_steps=steps,
                                  adversarial_accuracy=accuracy))  # fmt: skip
    results = power.show(folder)
    told = results.introduction[-1]
    assert (f"Shattered here: {shattered}" in told) == bool(shattered)
    assert (f"Not shattered here: {sound}" in told) == bool(sound)
    table = tables(results)["Accuracy by training and attack, test images"]
    marked = [row[0] for row in table.rows if row[-1] == "shattered"]
    assert "k = " + ", ".join(mark.removeprefix("k = ") for mark in marked) + "." == (
        shattered or "k = ."
    )
    assert table.rows[0][:3] == ["k = 1", "98.00", f"[{100 * curves[1][0]:.2f}]"]
    assert pictures(results) == ["power-training", "power-accuracy", "power-loss"]


@pytest.mark.parametrize(
    ("num_images", "higher", "is_clear"),
    [(100, 0.63, False), (100, 0.65, True), (1000, 0.55, False), (1000, 0.56, True)],
)
def test_difference_counts_where_chance_does_not_explain_it(
    num_images: int, higher: float, is_clear: bool
) -> None:
    rows = [{"num_images": num_images, "adversarial_accuracy": each} for each in (higher, 0.5)]
    assert power.is_clearly_above(*rows) is is_clear  # type: ignore[arg-type]


def test_transfer_marks_what_beats_the_white_box_and_stands_beside_the_paper(
    tmp_path: Path,
) -> None:
    folder = open_study(tmp_path, "transfer", "study.training_steps=[1,8]", preset="small")
    finish_runs(folder)
    accuracies = {("k1", "k1"): 0.99, ("k1", "k8"): 0.3, ("k8", "k1"): 0.96, ("k8", "k8"): 0.92}
    for (target, source), accuracy in accuracies.items():
        for steps in {int(source[1:]), 8}:
            add(folder, score_row(target, source, attack_steps=steps,
                                  adversarial_accuracy=accuracy))  # fmt: skip
    results = transfer.show(folder)
    assert (
        "Shattered here: k = 1 (by examples made on k = 8). No sign of it: k = 8."
        in (results.introduction[-1])
    )
    own, beside, strongest = tables(results).values()
    expected = [
        ["k = 1", "98.00", "[99.00]", "30.00\u2020"],
        ["k = 8", "98.00", "96.00", "[92.00]"],
    ]
    assert [list(row) for row in own.rows] == expected
    assert [list(row) for row in strongest.rows] == expected
    assert [list(row) for row in beside.rows] == [
        ["k = 1", "[99.00] (98.55)", "30.00\u2020 (27.16)"],
        ["k = 8", "96.00 (96.40)", "[92.00] (93.88)"],
    ]


def test_network_without_a_white_box_score_is_not_called_sound(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "transfer")
    finish_runs(folder)
    add(folder, *(score_row(f"k{k}", "k4", attack_steps=4) for k in (1, 4)))
    told = transfer.show(folder).introduction[-1]
    assert told == "Shattered here: none. No sign of it: none."


def test_log_that_cannot_be_read_is_told_from_none(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power")
    finish_runs(folder)
    (folder.folder_of("k1") / "log.h5").write_text("not HDF5")
    (folder.folder_of("k4") / "log.h5").unlink()
    assert [row[:2] for row in runs_table(folder).rows] == [
        ["k1", "log cannot be read"], ["k4", "not begun"],
    ]  # fmt: skip


UNFINISHED = {
    "nothing_begun": (),
    "nothing_scored": ("finished",),
    "one_network_under_a_stranger": ("finished", ("k1", "k4", 4)),
    "training_attack_missing": ("finished", ("k1", "k1", 2)),
    "one_score": ("finished", ("k4", "k4", 4)),
    "loss_of_zero": ("finished", ("k4", "k4", 4, 0.0)),
    "loss_not_a_number": ("finished", ("k4", "k4", 4, float("nan"))),
    "losses_of_many_sizes": ("finished", ("k4", "k4", 4, 0.001), ("k4", "k4", 1, 90.0)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("state", UNFINISHED.values(), ids=UNFINISHED)
def test_results_show_what_there_is_of_an_unfinished_study(
    tmp_path: Path, state: tuple[Any, ...], name: str
) -> None:
    folder = open_study(tmp_path, name)
    if state:
        finish_runs(folder)
    for target, source, steps, *loss in state[1:]:
        changed = {"adversarial_loss": loss[0]} if loss else {}
        add(folder, score_row(target, source, attack_steps=steps, **changed))
    results = {"power": power, "transfer": transfer}[name].show(folder)
    text, page = write_results(folder, results)
    assert text.read_text().startswith(f"# {results.title}\n")
    assert page.read_text().count("<img") == len(pictures(results))
    assert f"| k4 | {'finished' if state else 'not begun'} |" in text.read_text()


def test_pages_are_drawn_without_torch_and_mpi(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power")
    finish_runs(folder)
    add(folder, *(score_row(f"k{k}", f"k{k}", attack_steps=k, split=split)
                  for k in (1, 4) for split in ("test", "train")))  # fmt: skip
    program = (
        "import sys\n"
        "for name in ('torch', 'mpi4py'): sys.modules[name] = None\n"
        "from made_up_study import open_study\n"
        "from mpiadv.studies.power import show\n"
        "from mpiadv.studies.results import write_results\n"
        "from pathlib import Path\n"
        f"folder = open_study(Path({str(tmp_path)!r}), 'power')\n"
        "write_results(folder, show(folder))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=HERE)
    assert (tmp_path / "figures" / "power-loss.png").exists()
