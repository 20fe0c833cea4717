"""The trainer's state as a checkpoint holds it, and whether a checkpoint belongs to a run."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mpiadv.checkpoint import Checkpoint
from mpiadv.config import Config
from mpiadv.dotted_keys import flatten
from mpiadv.engine.learn import TorchLearner
from mpiadv.engine.trainer import Published
from mpiadv.errors import UserError
from mpiadv.models.weights import misfit_text
from mpiadv.runlog import read_attributes
from mpiadv.tickets import AttackSettings

FORMAT = 1


def training_state(
    config: Config,
    learner: TorchLearner,
    published: dict[int, Published],
    threads: int,
    fingerprints: Mapping[str, str],
    copy: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Everything that going on with the same bits takes. No random state: there is none.

    All tensors are `copy`s, so training may go on while the state is written.
    """
    state = {
        "format": FORMAT,
        "identity": json.dumps(config.identity()),
        "threads": threads,
        "data": dict(fingerprints),
        "device": learner.device_type,
        "model": learner.model.state_dict(),
        "unsaved_buffers": _unsaved_buffers(learner.model),
        "optimizer": learner.optimizer.state_dict(),
        "schedule": learner.schedule.state_dict(),
        "versions": {
            version: {
                "num_steps": item.settings.num_steps,
                "epsilon": item.settings.epsilon,
                "values": torch.from_numpy(item.values),
            }
            for version, item in published.items()
        },
    }
    copied: dict[str, Any] = _copied(state, copy)
    return copied


def _copied(value: Any, copy: Callable[[Tensor], Tensor]) -> Any:
    """The same containers anew, which training may not change, with copies of the tensors."""
    if isinstance(value, Tensor):
        return copy(value)
    if type(value) in (list, tuple):
        return type(value)(_copied(item, copy) for item in value)
    if type(value) in (dict, OrderedDict):
        copied = type(value)((key, _copied(item, copy)) for key, item in value.items())
        if hasattr(value, "_metadata"):  # versions of layers, which torch puts beside their tensors
            copied._metadata = value._metadata
        return copied
    return value


def restore(learner: TorchLearner, checkpoint: Checkpoint) -> dict[int, Published]:
    """Put the learner into the checkpoint's state; returns the versions to publish again.

    Raises:
        UserError: the model is not the one that was trained, though it goes by the same name.
    """
    payload = checkpoint.payload
    try:
        _restore_model(learner.model, payload)
    except (RuntimeError, AttributeError) as error:
        reason = misfit_text(payload["model"], learner.model)
        raise UserError(
            f"the model is not the one that {checkpoint.path} was trained with ({reason}): set "
            "its code back, or start anew with output=FOLDER"
        ) from error
    learner.optimizer.load_state_dict(payload["optimizer"])
    learner.schedule.load_state_dict(payload["schedule"])
    return {
        version: Published(
            settings=AttackSettings(num_steps=item["num_steps"], epsilon=item["epsilon"]),
            values=item["values"].numpy(),
        )
        for version, item in payload["versions"].items()
    }


def _restore_model(model: nn.Module, payload: dict[str, Any]) -> None:
    model.load_state_dict(payload["model"])
    with torch.no_grad():
        for name, kept in payload["unsaved_buffers"].items():
            model.get_buffer(name).copy_(kept)


def require_same_run(config: Config, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of another configuration.

    Raises:
        UserError: naming the first setting that differs.
    """
    if checkpoint.payload.get("format") != FORMAT:
        raise UserError(
            f"{checkpoint.path} has format {checkpoint.payload.get('format')!r}, this version of "
            f"mpiadv reads format {FORMAT}: resume with the version that wrote it"
        )
    _require_same(json.loads(checkpoint.payload["identity"]), config.identity(), checkpoint.path)


def require_same_data(
    config: Config, checkpoint: Checkpoint, fingerprints: Mapping[str, str]
) -> list[str]:
    """Refuse to go on with other training images; what else of the data differs, as warnings.

    Checkpoints of earlier versions tell nothing of their data.

    Raises:
        UserError: the training images are others, and the configuration does not allow it.
    """
    known = checkpoint.payload.get("data", fingerprints)
    changed = {split for split in fingerprints if known[split] != fingerprints[split]}
    if "train" in changed and not config.data.allow_changes:
        raise UserError(
            f"{checkpoint.path} was trained on other images than those that data.name="
            f"{config.data.name} gives now: put them back, or go on with data.allow_changes=true "
            f"for other bits than those of an undisturbed run, or start anew with output=FOLDER"
        )
    effects = {
        "train": "the final bits are not those of an undisturbed run",
        "test": "accuracy before and after cannot be compared",
    }
    return [f"the {split} images have changed: {effects[split]}" for split in sorted(changed)]


def require_same_log(config: Config, log: Path) -> None:
    """Refuse to go on with the log of another configuration, where there is no checkpoint yet.

    Raises:
        UserError: naming the first setting that differs.
    """
    try:
        known = flatten(yaml.safe_load(read_attributes(log)["config"]))
    except (UserError, KeyError, yaml.YAMLError):
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


def differences(checkpoint: Checkpoint, *, threads: int, device: str) -> list[str]:
    """What of the machine differs, so that the bits may not be those of an undisturbed run."""
    here = {"threads": threads, "device": device}
    return [
        f"resumed with {key}={value}, begun with {key}={checkpoint.payload[key]}: the final bits "
        "may differ from those of an undisturbed run"
        for key, value in here.items()
        if checkpoint.payload[key] != value
    ]


def _unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}
