"""What is wrong with a run to go on with, and the line that each of it gives."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import Words
from launching import words_of


def resumed(change: Callable[[Path], None] = lambda checkpoint: None, **settings: Any) -> Words:
    """`--resume` of an unfinished run whose newest checkpoint was changed."""

    def words(folder: Path) -> list[str]:
        copy = folder / "unfinished"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "finished", copy)
        (copy / "DONE").unlink()
        change(max((copy / "checkpoints").glob("*.pt")))
        return [*words_of(copy, **{"training__num_steps": 20, **settings}), "--resume"]

    return words


def _damage_all(checkpoint: Path) -> None:
    for path in checkpoint.parent.glob("*.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _with_part(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Write a checkpoint anew, whole, with one of its parts changed."""

    def rewrite(checkpoint: Path) -> None:
        import torch

        from mpiadv.storage.checkpoint import save_checkpoint

        payload = torch.load(checkpoint, weights_only=True)
        changed = {**payload, name: change(payload[name])}
        save_checkpoint(checkpoint.parent, int(checkpoint.stem[-9:]), changed, keep=2)

    return rewrite


def _nonsense(name: str, change: Callable[[Any], Any], reason: str) -> tuple[Words, str]:
    return (
        resumed(_with_part(name, change)),
        f"*/checkpoint-000000020.pt does not hold the state of this run ({reason}): move it *",
    )


def _odd_schedule(change: Callable[[Any], Any], reason: str) -> tuple[Words, str]:
    def change_step(part: Any) -> Any:
        return {**part, "schedule": change(part["schedule"])}

    return _nonsense("training_step", change_step, reason)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _remove_all(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint.parent)


CHECKPOINT_CASES: dict[str, tuple[Words, str]] = {
    "log_is_a_folder": (
        resumed(lambda checkpoint: _a_folder(checkpoint.parent.parent / "log.h5")),
        "*/unfinished/log.h5 is a folder, where a run has its file of that name: move it away, *",
    ),
    "truncated_checkpoint": (
        resumed(_damage_all),
        "*/checkpoint-000000020.pt is damaged, its SHA-256 checksum is wrong, nor can the 1 before "
        "it: there is no other checkpoint: restore one from a copy, or start again *",
    ),
    "checkpoint_without_a_part": (
        resumed(_with_part("versions", lambda part: [1])),
        "*/checkpoint-000000020.pt is no checkpoint of a training run of mpiadv: its versions is "
        "list, expected dict",
    ),
    "checkpoint_whose_settings_are_none": (
        resumed(_with_part("identity", lambda part: "[[[")),
        "*/checkpoint-000000020.pt is no checkpoint of * its identity is no mapping of settings",
    ),
    "checkpoint_of_another_step": _odd_schedule(
        lambda part: {**part, "last_epoch": 7}, "it is of step 7"
    ),
    "checkpoint_with_half_a_schedule": _odd_schedule(
        lambda part: {"last_epoch": 20}, "schedule lacks *"
    ),
    "checkpoint_with_odd_rates": _odd_schedule(
        lambda part: {**part, "_last_lr": "x"}, "schedule[[]'_last_lr'] is of another *"
    ),
    "checkpoint_with_another_optimiser": _nonsense(
        "training_step", lambda part: {**part, "optimizer": {"state": 1}}, "*"
    ),
    "checkpoint_with_an_odd_version": _nonsense(
        "versions", lambda part: {"x": 1}, "'int' object is not a mapping"
    ),
    "checkpoint_with_a_version_of_later": _nonsense(
        "versions", lambda part: {99: next(iter(part.values()))}, "version 99 is none of a run *"
    ),
    "checkpoint_of_other_data": (
        resumed(data__root="changed"),
        "*/checkpoint-000000020.pt was trained on other images than those that data.name="
        "bad_parts:images gives now: put them back, or go on with data.allow_changes=true for *",
    ),
    "checkpoint_of_another_configuration": (
        resumed(optimizer__learning_rate=0.2),
        "*/checkpoint-000000020.pt was trained with optimizer.learning_rate=0.1, this run has "
        "optimizer.learning_rate=0.2: set it back, or start anew with output=FOLDER",
    ),
    "log_of_another_configuration_without_a_checkpoint": (
        resumed(_remove_all, optimizer__learning_rate=0.2),
        "*/unfinished/log.h5 was trained with optimizer.learning_rate=0.1, this run has "
        "optimizer.learning_rate=0.2: set it back, or start anew with output=FOLDER",
    ),
}
"""A command line, made in a folder, and the line that it gives (fnmatch)."""
