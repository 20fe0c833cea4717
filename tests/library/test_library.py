"""mpiadv from Python: as its page has it, without MPI, and leaving everything else as it was."""

import importlib.metadata
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mpi_runner import REPOSITORY
from torch import nn

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


FILLS = "fill_uninitialized_memory"


def state() -> list[Any]:
    """The settings and streams that belong to the whole process."""
    streams = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    flags = [torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32]
    modes = [torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.is_grad_enabled()]
    modes += [torch.get_float32_matmul_precision(), str(torch.get_default_dtype())]
    modes += [getattr(torch.utils.deterministic, FILLS)]
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    return [*streams, *flags, *modes, *handlers]


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
    with pytest.raises(mpiadv.UserError, match="holds another run"):
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


class Odd(nn.Module):
    """Draws at random, counts its calls, and is partly in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))
        self.register_buffer("calls", torch.zeros(1))
        self.layers[1].eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(images + 0.01 * torch.randn_like(images))  # type: ignore[no-any-return]


IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])
ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


@pytest.mark.parametrize("loss", ["ce", "margin", "kl", "squares"])
@pytest.mark.parametrize("norm", ORDERS)
def test_attack_stays_in_its_ball_and_leaves_everything_as_it_was(norm: Any, loss: Any) -> None:
    model = Odd()
    model.layers[2].weight.grad = torch.ones(3, 16)
    model.layers[2].bias.requires_grad_(False)

    def looks() -> list[Any]:
        modes = [layer.training for layer in model.modules()]
        values = [value.tolist() for value in model.state_dict().values()]
        gradients = [(each.requires_grad, each.grad is None) for each in model.parameters()]
        return [modes, values, gradients, *state()]

    before = looks()
    given = {"epsilon": "1/10", "norm": norm, "num_steps": 5, "step_size": 0.004, "loss": loss}
    found = [mpiadv.attack(model, IMAGES, LABELS, **given) for _ in range(2)]
    assert looks() == before
    assert torch.equal(*found) and not torch.equal(found[0], IMAGES)
    assert found[0].min() >= 0 and found[0].max() <= 1
    lengths = torch.linalg.vector_norm((found[0] - IMAGES).flatten(1), ord=ORDERS[norm], dim=1)
    assert lengths.max() <= 0.1 + 1e-6
    other = mpiadv.attack(model, IMAGES, LABELS, **given, seed=1)
    assert not torch.equal(other, found[0])


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "bytes": (
        lambda: mpiadv.attack(Odd(), (255 * IMAGES).byte(), LABELS, epsilon=0.1),
        r"images are torch.uint8 \[5, 1, 4, 4\]: expected float32 \[N, C, H, W\]",
    ),
    "not_pixels": (
        lambda: mpiadv.attack(Odd(), IMAGES - 0.5, LABELS, epsilon=0.1), r"in \[0, 1\]",
    ),
    "labels": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS[:4], epsilon=0.1), r"expected int64 \[5\]",
    ),
    "label_of_no_class": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS + 1, epsilon=0.1),
        "^labels range from 1 to 3: the model has 3 classes, expected 0 to 2",
    ),
    "negative_label": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS - 1, epsilon=0.1), "^labels range from -1 to 1",
    ),
    "seed": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, seed=-1),
        "^seed=-1: expected a whole number of at least 0",
    ),
    "model_of_other_images": (
        lambda: mpiadv.attack(Odd(), IMAGES[..., :2], LABELS, epsilon=0.1),
        "^model Odd, given 1 image of 1x4x2, fails: ",
    ),
    "model_of_other_numbers": (
        lambda: mpiadv.attack(Odd().double(), IMAGES, LABELS, epsilon=0.1),
        "^model Odd, given 1 image of 1x4x4, fails: ",
    ),
    "no_logits": (
        lambda: mpiadv.attack(torch.nn.Flatten(0), IMAGES, LABELS, epsilon=0.1),
        r"^model: returns \[16\] for one image: expected logits \[1, K\]",
    ),
    "steps": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, num_steps=0),
        "^num_steps=0: expected a whole number above 0",
    ),
    "radius": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=-1), "^epsilon=-1: expected a number",
    ),
    "numpy_images": (
        lambda: mpiadv.attack(Odd(), IMAGES.numpy(), LABELS, epsilon=0.1),
        r"^images: expected a torch\.Tensor, not a ndarray",
    ),
    "numpy_labels": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS.numpy(), epsilon=0.1),
        r"^labels: expected a torch\.Tensor, not a ndarray",
    ),
    "function_as_a_model": (
        lambda: mpiadv.attack(torch.relu, IMAGES, LABELS, epsilon=0.1),  # type: ignore[arg-type]
        r"^model: expected a torch\.nn\.Module, not a builtin_function",
    ),
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
    "norm": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, norm="l3"),  # type: ignore[arg-type]
        "norm='l3'",
    ),
    "configuration": (lambda: mpiadv.load_config(overrides=["sed=1"]), "unknown setting sed"),
    "log": (lambda: mpiadv.read_log("none"), "there is no log at none"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "told"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_a_user_error_of_one_line(call: Callable[[], object], told: str) -> None:
    with pytest.raises(mpiadv.UserError, match=told) as refused:
        call()
    assert "\n" not in str(refused.value)


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
