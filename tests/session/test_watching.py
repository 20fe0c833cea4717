"""Weights chosen by images held out, and the guard against catastrophic overfitting."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from end_to_end import TINY, Finished, settled, staleness
from mpi_runner import REPOSITORY
from torch import Tensor, nn

import mpiadv
from mpiadv.data import load_data
from mpiadv.models import build_model, fingerprint
from mpiadv.process.errors import OverfittingError, UserError
from mpiadv.session.guard import Guard
from mpiadv.session.kept_weights import KeptWeights
from mpiadv.settings import DataConfig, GuardConfig, load_config

WORDS = (
    *TINY, "data.held_out_samples=100", "average.decay=0.9", "evaluation.every_steps=5",
    "evaluation.num_samples=60", "checkpoint.every_steps=5",
)  # fmt: skip


def train(folder: Path, *words: str, resume: bool = False) -> Finished:
    config = load_config(None, [*settled([*WORDS, *words]), f"output={folder}"])
    mpiadv.train(config, resume=resume)
    return Finished(path=folder)


def test_images_held_out_are_in_neither_training_nor_test_set() -> None:
    whole, data = (load_data(DataConfig(held_out_samples=n)) for n in (None, 100))
    assert data.held_out is not None and data.held_out.num_samples == 100
    assert data.train.num_samples == whole.train.num_samples - 100

    def pixels(source: Any) -> set[bytes]:
        images, _ = source.batch(np.arange(source.num_samples))
        return {image.numpy().tobytes() for image in images}

    held, trained = pixels(data.held_out), pixels(data.train)
    assert held | trained == pixels(whole.train)
    assert len(held) == 100 and not held & trained and not held & pixels(data.test)
    assert data.test.fingerprint == whole.test.fingerprint
    assert data.train.fingerprint != whole.train.fingerprint


def test_set_that_is_all_held_out_is_refused() -> None:
    with pytest.raises(UserError, match="held_out_samples=50 of 50 training samples leaves 0 to"):
        load_data(DataConfig(train_samples=50, held_out_samples=50))
    with pytest.raises(UserError, match="leaves 9 to train on, less than a batch of 10: use at mo"):
        load_data(DataConfig(train_samples=50, held_out_samples=41, batch_size=10))


def test_best_weights_are_those_that_withstood_most_on_images_held_out(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    rows = run.table("evaluation")
    held = rows[rows["images"] == b"held out"]
    assert held["step"].tolist() == [5, 5, 10, 10, 15, 15, 20, 20]
    assert set(held["num_samples"]) == {60}
    best = held[held["adversarial_accuracy"].argmax()]
    final = rows[rows["weights"] == b"best"]
    assert final["images"].tolist() == [b"test"] and final["step"].tolist() == [20]
    model = mpiadv.load_model(run.path / "best.pt", trust_code=True)
    assert _best_hash(run) == f"hash {fingerprint(model)}"
    done = (run.path / "DONE").read_text()
    assert f"{best['weights'].decode()} of step {best['step']}, " in done


def test_run_that_goes_on_remembers_its_best_weights(tmp_path: Path) -> None:
    # Natural training from step 10 on: what withstands most is of that step.
    words = (
        "attack_schedule.name=piecewise", "attack_schedule.first_steps=5",
        "attack_schedule.milestones=[10]", "attack_schedule.later_steps=[0]",
        "attack.random_start=false", *staleness(0, 0, 1), "optimizer.learning_rate=0.02",
        "schedule.name=constant", "average.decay=null",
    )  # fmt: skip
    calm, gone = train(tmp_path / "calm", *words), tmp_path / "gone"
    train(gone, *words)
    for name in ("DONE", "best.pt", "checkpoints/checkpoint-000000020.pt"):
        (gone / name).unlink()
    again = train(gone, *words, resume=True)
    assert _best_hash(again) == _best_hash(calm) != f"hash {calm.hash}"
    rows = again.table("evaluation")
    assert rows["step"][rows["images"] == b"held out"].tolist() == [5, 10, 15, 20]
    assert (gone / "best.pt").read_bytes() == (calm.path / "best.pt").read_bytes()


def _best_hash(run: Finished) -> str:
    events = run.table("events")
    return str(events["text"][events["kind"] == b"best end"][-1].decode())


class Counting(nn.Module):
    """With a buffer that is in no state dict."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(1), persistent=False)


def test_kept_weights_are_a_copy_with_all_buffers() -> None:
    model, other, kept, again = Counting(), Counting(), KeptWeights(), KeptWeights()
    model.seen += 3
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept.keep(4, "raw", model, 50.0, "PGD")
    for tensor in (*model.parameters(), model.seen):
        tensor.data.zero_()
    again.load_state_dict(kept.state_dict())
    again.put_into(other)
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)
    assert float(other.seen) == 3
    assert (again.step, again.weights, again.accuracy) == (4, "raw", 50.0)


def judged(guard: Guard, *accuracies: float) -> list[str]:
    model = nn.Linear(1, 1)
    return [guard.judge(step, model, accuracy, "PGD") for step, accuracy in enumerate(accuracies)]


def test_guard_tells_of_a_fall_once_until_accuracy_is_back() -> None:
    guard = Guard(config=GuardConfig(every_steps=1))
    told = judged(guard, 40.0, 60.0, 41.0, 39.9, 30.0, 45.0, 10.0)
    fell = "accuracy of training images under PGD-5 fell from 60.0 to"
    ends = ("39.9 %: catastrophic overfitting", "10.0 %: catastrophic overfitting")
    assert told == ["", "", "", f"{fell} {ends[0]}", "", "", f"{fell} {ends[1]}"]
    assert not guard.must_stop


def test_guard_that_stops_keeps_the_weights_before_the_fall_also_when_gone_on_with() -> None:
    guard, other = (Guard(config=GuardConfig(every_steps=1, action="stop")) for _ in range(2))
    judged(guard, 40.0, 60.0)
    other.load_state_dict(guard.state_dict())
    assert judged(other, 10.0) != [""] and other.must_stop
    assert (other.good.step, other.good.accuracy) == (1, 60.0)


def test_guard_that_is_to_stop_from_now_on_has_the_weights_from_before_the_fall() -> None:
    warned, stopping = (
        Guard(config=GuardConfig(every_steps=1, action=action)) for action in ("warn", "stop")
    )
    assert judged(warned, 60.0, 10.0)[1]
    stopping.load_state_dict(warned.state_dict())
    assert judged(stopping, 12.0) == [""] and stopping.must_stop
    assert stopping.good.accuracy == 60.0


def test_measurements_of_another_attack_do_not_compare() -> None:
    guard, model, best = Guard(config=GuardConfig(every_steps=1)), nn.Linear(1, 1), KeptWeights()
    assert guard.judge(1, model, 90.0, "PGD-1") == ""
    assert guard.judge(2, model, 50.0, "PGD-20") == "" and not guard.has_fallen
    assert guard.judge(3, model, 20.0, "PGD-20") != ""
    best.keep(1, "raw", model, 90.0, "PGD-1")
    assert not best.forget_other("PGD-1") and best.accuracy == 90.0
    assert best.forget_other("PGD-20") and best == KeptWeights()


MNIST = REPOSITORY.parent / "shared" / "data"


@pytest.mark.skipif(not (MNIST / "MNIST").exists(), reason="MNIST is not in ../shared/data")
def test_catastrophic_overfitting_ends_the_run_with_the_weights_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FGSM from the images themselves, at a large radius."""
    words = (
        "data.name=mnist", f"data.root={MNIST}", "data.download=false", "model.name=mnist",
        "model.arguments.initialization=torch", "model.arguments.width=0.25",
        "attack.name=fgsm", "attack.epsilon=0.25", "attack.epsilon_warmup_steps=200",
        "optimizer.learning_rate=0.003", "schedule.name=constant", "staleness.max_staleness=0",
        "staleness.final_staleness=0", "staleness.publish_every=1", "training.num_steps=1500",
        "evaluation.every_steps=0", "guard.every_steps=100", "guard.action=stop",
    )  # fmt: skip
    config = load_config(None, [*words, f"output={tmp_path / 'run'}"])
    with pytest.raises(OverfittingError, match=r"fell from .*: catastrophic overfitting: the "):
        mpiadv.train(config)
    run = Finished(path=tmp_path / "run")
    rows, events = run.table("evaluation"), run.table("events")
    assert set(rows["images"]) == {b"train"}
    *before, last = 100 * rows["adversarial_accuracy"]
    assert max(before) - last > 20
    assert (events["kind"][-1], events["step"][-1]) == (b"overfitted", rows["step"][-1])
    model = build_model(config.model, num_classes=10, image_shape=(1, 28, 28), seed=0)
    model.load_state_dict(torch.load(run.path / "good.pt", weights_only=True))
    assert f"{before[-1]:.2f} % of 256 training images" in capsys.readouterr().out
