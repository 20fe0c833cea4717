"""Checkpoints: complete or absent at any instant, and never silently wrong."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disk_faults import largest_file

from mpiadv.process.errors import UserError
from mpiadv.storage.checkpoint import (
    load_checkpoint,
    load_newest,
    save_checkpoint,
    save_model,
    set_aside,
)


def payload_of(step: int) -> dict[str, Any]:
    return {"weights": torch.full((100,), float(step)), "step": step, "ring": [(0, torch.ones(3))]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def checkpoint_names(*steps: int) -> list[str]:
    return [f"checkpoint-{step:09d}.pt{end}" for step in steps for end in ("", ".sha256")]


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 1, 5, 5)).sum().backward()
    optimizer.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "note": "é",
        "n": 0.1,
    }
    path = save_checkpoint(tmp_path / "checkpoints", 7, saved, keep=1)
    read = load_newest(tmp_path / "checkpoints")
    assert read is not None and (read.step, read.path) == (7, path)
    assert (read.payload.pop("note"), saved.pop("note")) == ("é", "é")
    torch.testing.assert_close(read.payload, saved, rtol=0, atol=0)


def test_folder_without_checkpoints_gives_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "missing") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (500, 1000, 1500, 2000):
        save_checkpoint(tmp_path, step, payload_of(step), keep=2)
    assert names(tmp_path) == checkpoint_names(1500, 2000)


def test_checksum_file_is_what_sha256sum_reads(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 500, payload_of(500), keep=2)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n"


def test_same_step_is_saved_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 500, payload_of(1), keep=2)
    path = save_checkpoint(tmp_path, 500, payload_of(2), keep=2)
    assert load_checkpoint(path).payload["step"] == 2
    assert names(tmp_path) == checkpoint_names(500)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, lose_checksum])
def test_damaged_checkpoints_are_passed_over_and_can_be_set_aside(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    older, *damaged = [
        save_checkpoint(tmp_path, step, payload_of(step), keep=3) for step in (500, 1000, 1500)
    ]
    for path in damaged:
        damage(path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    found = load_newest(tmp_path)
    assert found is not None and (found.path, found.payload["step"]) == (older, 500)
    assert found.passed_over == tuple(reversed(damaged))
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in damaged:
        assert set_aside(path).read_bytes() == before[path]
    found = load_newest(tmp_path)
    assert found is not None and (found.path, found.passed_over) == (older, ())
    for step in (1000, 1500):
        save_checkpoint(tmp_path, step, payload_of(step), keep=1)
    aside = [f"{path.name}.damaged-1" for path in damaged]
    assert {*aside, *checkpoint_names(1500)} <= set(names(tmp_path))


@pytest.mark.parametrize("count", [1, 3])
def test_line_that_all_checkpoints_are_damaged(tmp_path: Path, count: int) -> None:
    for step in range(count):
        flip(save_checkpoint(tmp_path, step, payload_of(step), keep=count))
    others = ", nor can the 2 before it" if count == 3 else ""
    told = f"checksum is wrong{others}: there is no other checkpoint: restore one from a copy"
    with pytest.raises(UserError, match=told):
        load_newest(tmp_path)


@pytest.mark.parametrize("content", [b"no zip", b"", b"PK\x03\x04"], ids=["text", "empty", "cut"])
def test_file_with_a_right_checksum_that_is_no_checkpoint_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = save_checkpoint(tmp_path, 500, payload_of(500), keep=1)
    newest = save_checkpoint(tmp_path, 1000, payload_of(1000), keep=2)
    torch.save([1, 2], newest) if content == b"" else newest.write_bytes(content)
    digest = hashlib.sha256(newest.read_bytes()).hexdigest()
    newest.with_name(f"{newest.name}.sha256").write_text(f"{digest}  {newest.name}\n")
    with pytest.raises(UserError, match="is no checkpoint of a training run") as refusal:
        load_newest(tmp_path)
    assert "\n" not in str(refusal.value) and path.exists()


@pytest.mark.parametrize("name", ["model.pt", "checkpoint-000000500.pt"])
def test_wrong_path_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "value", [np.float64(1.0), {1, 2}, object(), [print]], ids=lambda value: type(value).__name__
)
def test_what_could_not_be_read_back_is_refused_on_saving(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"payload\['deep'\]\['value'\]"):
        save_checkpoint(tmp_path, 1, {"deep": {"value": value}}, keep=1)
    assert names(tmp_path) == []


class Killed(BaseException):
    """Stands for a kill: from then on no change of names happens any more."""


class DyingProcess:
    """Lets through the first `lifetime` changes of names in a folder."""

    def __init__(self, lifetime: int) -> None:
        self.remaining = lifetime
        self.died = False

    def mortal(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.died = self.died or self.remaining == 0
            if self.died:
                raise Killed
            self.remaining -= 1
            return change(*arguments, **options)

        return wrapper


@pytest.mark.parametrize("step", [500, 1000], ids=["same step again", "next step"])
@pytest.mark.parametrize("lifetime", range(5))
def test_folder_is_loadable_between_any_two_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifetime: int, step: int
) -> None:
    save_checkpoint(tmp_path, 500, {"save": "first"}, keep=1)
    process = DyingProcess(lifetime)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(os, "replace", process.mortal(os.replace))
        patch.setattr(Path, "unlink", process.mortal(Path.unlink))
        save_checkpoint(tmp_path, step, {"save": "second"}, keep=1)
    newest = load_newest(tmp_path)
    in_place = lifetime >= 2  # the checksum takes its name first, the checkpoint second
    assert newest is not None and newest.payload["save"] == ("second" if in_place else "first")
    assert process.died == (lifetime < (3 if step == 500 else 4))
    save_checkpoint(tmp_path, 1500, {}, keep=1)
    assert names(tmp_path) == checkpoint_names(1500)


KILLS = """
import itertools, os, random, signal, sys, time, torch
from pathlib import Path
from mpiadv.storage.checkpoint import load_newest, save_checkpoint

def save_for_ever(folder, first, done):
    for step in itertools.count(first):
        save_checkpoint(folder, step, {"weights": torch.full((200_000,), float(step))}, keep=2)
        os.pwrite(done, step.to_bytes(8), 0)

torch.set_num_threads(1)
folder, first = Path(sys.argv[1]), 1
done = os.memfd_create("the newest step whose save has returned")
os.pwrite(done, bytes(8), 0)
draws = random.Random(0)
for _ in range(int(sys.argv[2])):
    if not (saver := os.fork()):
        save_for_ever(folder, first, done)
    time.sleep(draws.uniform(0.01, 0.1))
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    saved = max(first - 1, int.from_bytes(os.pread(done, 8, 0)))
    newest = load_newest(folder)
    step = newest.step if newest else 0
    assert step in (saved, saved + 1), (step, saved)
    assert newest is None or (newest.payload["weights"] == step).all(), step
    first = step + 1
print("saved", step)
"""


def test_kill_at_any_time_leaves_the_newest_loadable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path), "10"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    assert int(outcome.stdout.removeprefix("saved")) >= 1


@pytest.mark.parametrize("kept", [0, 1000, 9_000_000], ids=lambda kept: f"after {kept} bytes")
def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path, kept: int) -> None:
    save_checkpoint(tmp_path, 500, payload_of(500), keep=1)
    before = names(tmp_path)
    with largest_file(kept), pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path, 1000, {"weights": torch.ones(3_000_000)}, keep=1)
    assert names(tmp_path) == before
    newest = load_newest(tmp_path)
    assert newest is not None and newest.payload["step"] == 500


def test_model_is_a_plain_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    save_model(tmp_path / "model.pt", model.state_dict())
    read = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(dict(model.state_dict()), read, rtol=0, atol=0)
    assert names(tmp_path) == ["model.pt"]
