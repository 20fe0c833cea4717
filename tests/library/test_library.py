"""mpiadv from Python: as its page has it, without MPI, and leaving everything else as it was."""

import importlib.metadata
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from global_state import state
from mpi_runner import REPOSITORY
from refusals import refusal

import mpiadv
from mpiadv.runlog.rows import LAYOUTS
from mpiadv.session.recorder import Recorder

WORDS = (
    "attack.num_steps=2",
    "evaluation.num_steps=3",
    "evaluation.every_steps=0",
    "checkpoint.every_steps=10",
    "training.device=cpu",
    "average.decay=0.9",
)

NO_MPI = "import sys; sys.modules['mpi4py'] = None\n"


def config_of(folder: Path, num_steps: int = 30) -> mpiadv.Config:
    words = [*WORDS, f"output={folder}", f"training.num_steps={num_steps}"]
    return mpiadv.load_config(overrides=words)


def run_alone(code: str, folder: Path) -> str:
    """What a process of its own prints, in which MPI cannot be imported."""
    line = [sys.executable, "-c", NO_MPI + code]
    env = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    completed = subprocess.run(
        line, cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mpiadv.TrainedRun:
    return mpiadv.train(config_of(tmp_path_factory.mktemp("library") / "run"))


def test_page_runs_as_a_notebook_would(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/library.md").read_text()
    cells = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(cells) == 3
    told = run_alone("\n".join(cells), tmp_path)
    hash_of_run = mpiadv.read_log(tmp_path / "runs/notebook").hash
    assert f"of the test images withstand, hash {hash_of_run[:8]}\n" in told
    assert re.search(r"[\d.]+% of 50 images withstand\n0\.15 2", told)


def test_importing_it_loads_nothing_else(tmp_path: Path) -> None:
    code = "import mpiadv, sys; print({'torch', 'pydantic', 'h5py', 'typing'} & set(sys.modules))"
    assert run_alone(code, tmp_path) in ("set()\n", "{'typing'}\n")


def test_all_names_are_there_and_no_others() -> None:
    for name in mpiadv.__all__:
        assert getattr(mpiadv, name).__name__ == name
    assert set(mpiadv.__all__) <= set(dir(mpiadv))
    with pytest.raises(AttributeError, match="module 'mpiadv' has no attribute 'trian'"):
        mpiadv.trian  # type: ignore[attr-defined]  # noqa: B018


def test_trained_bits_are_those_of_the_command(run: mpiadv.TrainedRun, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mpiadv.cli", *WORDS, "training.num_steps=30"]
    subprocess.run(
        [*line, f"output={tmp_path / 'run'}"], check=True, capture_output=True, timeout=300
    )
    log = mpiadv.read_log(tmp_path / "run")
    assert (run.hash, run.num_steps) == (log.hash, 30)
    figures = {
        row["weights"]: (row["natural_accuracy"], row["adversarial_accuracy"])
        for row in log.evaluation
    }
    assert (run.natural_accuracy, run.adversarial_accuracy) == figures[b"raw"] != figures[b"ema"]


def test_trained_bits_are_those_of_the_command_in_mixed_precision(tmp_path: Path) -> None:
    words = (*WORDS, "training.num_steps=5", "training.precision=bfloat16")
    here, there = (f"output={tmp_path / name}" for name in ("here", "there"))
    line = [sys.executable, "-m", "mpiadv.cli", *words, there]
    subprocess.run(line, check=True, capture_output=True, timeout=300)
    run = mpiadv.train(mpiadv.load_config(overrides=[*words, here]))
    assert run.hash == mpiadv.read_log(tmp_path / "there").hash


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    before = state()
    mpiadv.train(config_of(tmp_path / "run", num_steps=3))
    assert state() == before


@pytest.fixture
def unusual_settings() -> Iterator[None]:
    """Of torch, as a notebook may have made them."""
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        yield
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("unusual_settings")
def test_settings_of_the_process_change_no_bits_and_stay(
    run: mpiadv.TrainedRun, tmp_path: Path
) -> None:
    before = state()
    assert mpiadv.train(config_of(tmp_path / "run")).hash == run.hash
    assert state() == before


def test_attack_that_fails_on_its_way_is_told_of(tmp_path: Path) -> None:
    words = ["attack.name=small_attacks:superstitious", "attack.epsilon_warmup_steps=60"]
    config = mpiadv.load_config(overrides=[*WORDS, f"output={tmp_path / 'run'}", *words])
    with pytest.raises(mpiadv.UserError, match="step fails: RuntimeError: not with this radius"):
        mpiadv.train(config)


def test_training_works_in_a_thread_that_hears_no_signals(tmp_path: Path) -> None:
    done = []
    config = config_of(tmp_path / "run", num_steps=3)
    thread = threading.Thread(target=lambda: done.append(mpiadv.train(config)))
    thread.start()
    thread.join()
    assert done[0].num_steps == 3


def test_interrupted_run_goes_on_to_the_same_bits(
    run: mpiadv.TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, on_step = config_of(tmp_path / "run"), Recorder.on_step

    def interrupted(recorder: Recorder, record: Any) -> None:
        on_step(recorder, record)
        if record.step == 12:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "on_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="resume=True"):
            mpiadv.train(config)
    with pytest.raises(mpiadv.UserError, match="holds a run that has not finished"):
        mpiadv.train(config)
    assert mpiadv.train(config, resume=True) == mpiadv.train(config, resume=True)
    assert mpiadv.read_log(config.output).hash == run.hash


def test_network_is_the_same_from_folder_file_and_checkpoint(run: mpiadv.TrainedRun) -> None:
    places = (
        run.folder, run.folder / "model.pt", run.folder / "checkpoints/checkpoint-000000030.pt",
    )  # fmt: skip
    models = [mpiadv.load_model(place) for place in places]
    assert not any(layer.training for model in models for layer in model.modules())
    images = torch.rand(3, 1, 8, 8)
    assert len({model(images).sum().item() for model in models}) == 1
    average = mpiadv.load_model(run.folder / "model-ema.pt")
    assert average(images).sum().item() != models[0](images).sum().item()
    with pytest.raises(mpiadv.UserError, match="there is no"):
        mpiadv.load_model(run.folder / "none.pt")


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "file_in_place_of_its_configuration": (
        lambda: mpiadv.train("configs/digits.yaml"),  # type: ignore[arg-type]
        "config='configs/digits.yaml': expected a Config, as load_config gives",
    ),
    "one_override": (
        lambda: mpiadv.load_config(overrides="attack.loss=kl"),
        r"^overrides='attack.loss=kl': expected a list, as \[",
    ),
    "override_of_a_model": (
        lambda: mpiadv.load_model("none", "seed=1"), r"^overrides='seed=1': expected a list, as",
    ),
    "configuration": (lambda: mpiadv.load_config(overrides=["sed=1"]), "unknown setting sed"),
    "log": (lambda: mpiadv.read_log("none"), "there is no log at none"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "told"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_a_user_error_of_one_line(call: Callable[[], object], told: str) -> None:
    assert re.search(told, refusal(call))


def test_version_is_that_of_the_package() -> None:
    assert mpiadv.__version__ == importlib.metadata.version("mpiadv")


def test_log_has_an_attribute_for_each_table(run: mpiadv.TrainedRun) -> None:
    log = mpiadv.read_log(run.folder)
    assert {name: getattr(log, name).dtype for name in LAYOUTS} == {
        name: layout.dtype for name, layout in LAYOUTS.items()
    }
    assert list(log.train["step"]) == list(range(30))
    assert log.config["training.num_steps"] == 30
    assert log.units("train")["craft_seconds"].startswith("seconds")
    assert len(log.snapshots) == len(log.attackers) == 0
    assert "pixels" in log.units("snapshots")["images"]


def test_table_becomes_a_frame_where_pandas_is_installed(
    run: mpiadv.TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = mpiadv.read_log(run.folder)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(mpiadv.UserError, match="pip install pandas"):
        log.to_pandas("train")
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert dict(log.to_pandas("events"))["kind"][0] == "start"
    with pytest.raises(mpiadv.UserError, match="no table 'trian': it has train, evaluation"):
        log.to_pandas("trian")
