"""Whether a checkpoint, or a log, belongs to a run, and what has changed since it was written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from mpiadv.process.errors import UserError
from mpiadv.runlog import read_attributes
from mpiadv.settings import Config
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.yaml_files import parse_yaml
from mpiadv.storage.checkpoint import Checkpoint

FORMAT = 1
"""Of checkpoints."""

SOURCES = "attack.sources"

_FIELDS = {
    "identity": str, "threads": int, "device": str, "model": dict, "unsaved_buffers": dict,
    "versions": dict,
}  # fmt: skip


def require_same_run(config: Config, checkpoint: Checkpoint, *, is_done: bool = False) -> None:
    """Refuse a checkpoint of another configuration.

    Sources are known by their hashes, see `require_same_sources`, but where the run `is_done`: none
    are loaded then.

    Raises:
        UserError: naming the first setting that differs.
    """
    if checkpoint.payload.get("format") != FORMAT:
        raise UserError(
            f"{checkpoint.path} has format {checkpoint.payload.get('format')!r}, this version of "
            f"mpiadv reads format {FORMAT}: resume with the version that wrote it"
        )
    theirs, ours = _identity(checkpoint), config.identity()
    if not is_done:
        theirs[SOURCES] = ours[SOURCES]
    _require_same(theirs, ours, checkpoint.path)


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings that a checkpoint was written with.

    Raises:
        UserError: it lacks them, or another of its parts.
    """
    payload = checkpoint.payload
    for name, kind in _FIELDS.items():
        if not isinstance(payload.get(name), kind):
            found = type(payload.get(name)).__name__
            raise _none_of_ours(checkpoint, f"its {name} is {found}, expected {kind.__name__}")
    for name in ("model", "unsaved_buffers"):
        if not all(isinstance(tensor, Tensor) for tensor in payload[name].values()):
            raise _none_of_ours(checkpoint, f"not all of its {name} are tensors")
    try:
        return dict(json.loads(payload["identity"]))
    except (ValueError, TypeError, RecursionError):
        raise _none_of_ours(checkpoint, "its identity is no mapping of settings") from None


def _none_of_ours(checkpoint: Checkpoint, why: str) -> UserError:
    return UserError(f"{checkpoint.path} is no checkpoint of a training run of mpiadv: {why}")


def require_same_data(
    config: Config, checkpoint: Checkpoint, fingerprints: Mapping[str, str]
) -> list[str]:
    """Refuse to go on with other training images; what else of the data differs, as warnings.

    Checkpoints of earlier versions tell nothing of their data.

    Raises:
        UserError: the training images are others, and the configuration does not allow it.
    """
    known = checkpoint.payload.get("data", fingerprints)
    if not isinstance(known, dict):
        raise _none_of_ours(checkpoint, f"its data is {type(known).__name__}, expected dict")
    changed = {split for split in fingerprints if known.get(split) != fingerprints[split]}
    if "train" in changed and not config.data.allow_changes:
        raise UserError(
            f"{checkpoint.path} was trained on other images than those that data.name="
            f"{config.data.name} gives now: put them back, or go on with data.allow_changes=true "
            f"for other bits than those of an undisturbed run, or start anew with output=FOLDER"
        )
    effects = {
        "train": "the final bits are not those of an undisturbed run",
        "test": "accuracy before and after cannot be compared",
        "held out": "the best weights before and after cannot be compared",
    }
    return [f"the {split} images have changed: {effects[split]}" for split in sorted(changed)]


def require_same_sources(checkpoint: Checkpoint, hashes: Sequence[str]) -> None:
    """Refuse to go on with other networks in `attack.sources`, wherever these lie.

    Raises:
        UserError: theirs are not the `hashes` here, in that order.
    """
    known, here = checkpoint.payload.get("sources", ""), ",".join(hashes)
    if known != here:
        raise UserError(
            f"{checkpoint.path} was trained with attack.sources of the hashes {known or '(none)'}, "
            f"this run's are {here or '(none)'}: name the folders of those networks, or start anew "
            "with output=FOLDER"
        )


def require_same_log(config: Config, log: Path) -> None:
    """Refuse to go on with the log of another configuration, where there is no checkpoint yet.

    Raises:
        UserError: naming the first setting that differs.
    """
    try:
        known = flatten(parse_yaml(str(read_attributes(log)["config"])))
    except (UserError, KeyError, yaml.YAMLError, AttributeError):
        return  # missing or damaged: resuming begins another one
    ours = config.identity()
    _require_same({key: known[key] for key in ours if key in known}, ours, log)


def _require_same(theirs: dict[str, Any], ours: dict[str, Any], source: Path) -> None:
    # A setting that the writer did not know yet had what is its default now.
    theirs = {**Config().identity(), **theirs}
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            raise UserError(
                f"{source} was trained with {key}={theirs.get(key)}, this run has "
                f"{key}={ours.get(key)}: set it back, or start anew with output=FOLDER"
            )


def differences(checkpoint: Checkpoint, here: Mapping[str, str | int]) -> list[str]:
    """What differs beside the configuration, so that bits may not be those of an undisturbed run.

    `here` is what holds now: threads, device, memory_format.
    """
    before = {"memory_format": "contiguous", **checkpoint.payload}  # versions that tell of none
    return [
        f"resumed with {key}={value}, begun with {key}={before[key]}: the final bits "
        "may differ from those of an undisturbed run"
        for key, value in here.items()
        if before[key] != value
    ]
