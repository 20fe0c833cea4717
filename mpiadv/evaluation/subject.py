"""What is evaluated: a trained network read from a run, a checkpoint or a plain file of weights.

Knows no attack and no communicator.
"""

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mpiadv.attacks import as_target
from mpiadv.data import DataSet
from mpiadv.evaluation.weights_file import read_weights_file
from mpiadv.models import build_model, choose_format, fingerprint
from mpiadv.models.mixture import NaturalBranch
from mpiadv.models.weights import PLACES, misfit_text, renamed, unusable_text, unwrapped
from mpiadv.process.errors import UserError
from mpiadv.runlog import read_attributes, read_table
from mpiadv.runlog.rows import END_EVENTS
from mpiadv.settings import Config, MemoryFormat, Precision, override_config, parse_config
from mpiadv.settings.dotted_keys import nested
from mpiadv.settings.pixels import FITTING_STEPS
from mpiadv.settings.yaml_files import parse_yaml
from mpiadv.storage.checkpoint import DamagedCheckpointError, is_checkpoint, load_checkpoint
from mpiadv.storage.run_folder import LOG_NAME, MODEL_NAMES, NATURAL, RAW, RunState, state_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A trained network on disk.

    Attributes:
        path: what the user named.
        config: the configuration it was trained with, with the user's changes.
        weights: its state dict, on the CPU.
        unsaved_buffers: buffers that belong to no state dict.
        expected_hash: of the whole model, where the run has told it.
        has_radius: whether attack.norm and attack.epsilon are somebody's choice.
        notes: lines for the user about the run's own evaluation.
        taken: lines for the user about what was done to the weights.
    """

    path: Path
    config: Config
    weights: dict[str, Any]
    unsaved_buffers: dict[str, Tensor] = field(default_factory=dict)
    expected_hash: str | None = None
    has_radius: bool = True
    notes: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    @property
    def ball(self) -> tuple[str, float | None]:
        """Norm and radius of attacks that do not say; None where nobody chose one."""
        attack = self.config.attack
        return attack.norm, attack.epsilon if self.has_radius else None

    @property
    def name(self) -> str:
        """A short name: the run's folder, or the file without its ending."""
        return self.path.resolve().name if os.path.isdir(self.path) else self.path.stem

    @property
    def output(self) -> Path:
        """Where results go, if the user does not say: beside it, without an ending."""
        if os.path.isdir(self.path):
            return self.path / "evaluation"
        return self.path.with_name(f"{self.path.stem}-evaluation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A subject's model on the device, its hash, lines about its weights, and how it lies there."""

    model: nn.Module
    hash: str
    taken: tuple[str, ...]
    memory_format: MemoryFormat


def read_subject(
    path: Path, overrides: Sequence[str], trusted: Collection[str] | None = ()
) -> Subject:
    """Read a run's folder, a model in it, a checkpoint, or any other file as a plain state dict.

    A folder stands for the weights as trained. A state dict that lies elsewhere brings no
    configuration: `overrides` then have to name model and data set. Code that a configuration names
    is refused unless `trusted`, or the overrides, name it too: see `override_config`.

    Raises:
        UserError: nothing is there, it is damaged, or the configuration is not complete.
    """
    if os.path.isdir(path):
        return _read_run(path, path, RAW, overrides, trusted)
    if not os.path.exists(path):
        raise UserError(f"there is no {path}: expected a run's folder, or a file of weights (.pt)")
    if is_checkpoint(path):
        return _read_checkpoint(path, overrides, trusted)
    for weights, name in MODEL_NAMES.items():
        if path.name == name and os.path.exists(path.with_name(LOG_NAME)):
            return _read_run(path, path.parent, weights, overrides, trusted)
    return _read_weights(path, overrides)


def load_network(
    subject: Subject, data: DataSet, device: torch.device, precision: Precision | None = None
) -> Network:
    """Build a subject's model on a device, with its weights.

    With a precision it is laid out in memory as for training in it, and its weights may be held
    cast; else it is as it was built.

    Raises:
        UserError: they do not fit, are no numbers, or are not those that the run has told of.
    """
    config = subject.config
    build = partial(
        build_model,
        config.model,
        num_classes=data.num_classes,
        image_shape=data.image_shape,
        seed=config.seed,
    )
    model = build()
    found, renaming = load_into(model, subject)
    model.to(device)
    memory_format: MemoryFormat = "contiguous"
    if precision is not None:
        memory_format = choose_format(
            config.training.memory_format,
            build,
            data.image_shape,
            device=device,
            precision=precision,
        )
        as_target(model, data.image_shape, memory_format=memory_format, precision=precision)
    if config.evaluation.branch == NATURAL:
        model = NaturalBranch(model)
    return Network(
        model=model,
        hash=found,
        taken=(*subject.taken, *renaming),
        memory_format=memory_format,
    )


def load_into(model: nn.Module, subject: Subject) -> tuple[str, list[str]]:
    """Put a subject's weights into its model: the model's hash, and lines about names of weights.

    Names that only a prefix tells from the model's are taken without it.

    Raises:
        UserError: as `load_network`.
    """
    weights, left_out = renamed(subject.weights, model)
    try:
        model.load_state_dict(weights)
        with torch.no_grad():
            for name, kept in subject.unsaved_buffers.items():
                model.get_buffer(name).copy_(kept)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = misfit_text(weights, model)
        raise UserError(
            f"{subject.path} does not fit model {subject.config.model.name!r} for data set "
            f"{subject.config.data.name!r}: {reason}: set model.* and data.* as in training"
        ) from error
    if unusable := unusable_text(model):
        raise UserError(
            f"{subject.path} holds values that are no numbers, first in {unusable}: its training "
            "has failed, or the file is damaged: there is nothing to evaluate"
        )
    found = fingerprint(model)
    if subject.expected_hash not in (None, found):
        raise UserError(
            f"{subject.path} is not the model that its log tells of (hash {found[:12]}, expected "
            f"{subject.expected_hash[:12]}): a file was changed, or the model has buffers that "
            "no state dict keeps: evaluate a file of its checkpoints/ instead"
        )
    taken = f"{subject.path}: names of weights taken without {left_out!r}"
    return found, [taken] if left_out else []


def _read_run(
    path: Path,
    folder: Path,
    weights: str,
    overrides: Sequence[str],
    trusted: Collection[str] | None,
) -> Subject:
    """The model of a run with the weights of that name; `path` is what the user named."""
    log, model = folder / LOG_NAME, folder / MODEL_NAMES[weights]
    try:
        tree = dict(parse_yaml(str(read_attributes(log)["config"])))
    except (KeyError, TypeError, ValueError, yaml.YAMLError):
        raise UserError(f"{log} holds no configuration: it is no log of a training run") from None
    if not os.path.exists(model):
        more = "" if state_of(folder) is RunState.FINISHED else ", or finish the run with --resume"
        raise UserError(f"{folder} has no {model.name}: evaluate a file of its checkpoints/{more}")
    trained = parse_config(tree)
    config, notes = with_fitting_steps(
        override_config(tree, overrides, trusted=trusted), trained, overrides
    )
    return Subject(
        path=path,
        config=config,
        notes=notes,
        weights=_state_dict_in(model)[0],
        expected_hash=_hash_told(log, weights) if config.model == trained.model else None,
    )


def with_fitting_steps(
    config: Config, trained: Config, overrides: Sequence[str]
) -> tuple[Config, tuple[str, ...]]:
    """What came of a run's configuration `trained`, and lines for the user.

    Without the run's own step size where its model is to be attacked in another ball.
    """
    size = config.evaluation.step_size
    balls = {(each.attack.norm, each.attack.epsilon) for each in (trained, config)}
    is_given = any(override.startswith("evaluation.step_size=") for override in overrides)
    if len(balls) == 1 or is_given or size is None:
        return config, ()
    changed = config.evaluation.model_copy(update={"step_size": None})
    note = (
        f"evaluation.step_size={size:g} was made for {trained.attack.norm} "
        f"{trained.attack.epsilon:g}: here steps are {FITTING_STEPS}"
    )
    return config.model_copy(update={"evaluation": changed}), (note,)


def _read_checkpoint(
    path: Path, overrides: Sequence[str], trusted: Collection[str] | None
) -> Subject:
    try:
        payload = load_checkpoint(path).payload
    except DamagedCheckpointError as error:
        raise UserError(
            f"{error}: evaluate another one of {path.parent}, or the finished run's folder"
        ) from None
    try:
        identity = dict(json.loads(payload["identity"]))
        weights, buffers = payload["model"], payload["unsaved_buffers"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no checkpoint of a training run of mpiadv") from None
    return Subject(
        path=path,
        config=override_config(nested(identity), overrides, trusted=trusted),
        weights=weights,
        unsaved_buffers=buffers,
    )


def _read_weights(path: Path, overrides: Sequence[str]) -> Subject:
    given = {override.partition("=")[0] for override in overrides}
    missing = [key for key in ("model.name", "data.name") if key not in given]
    if missing:
        wanted = " and ".join(f"{key}=..." for key in missing)
        raise UserError(f"{path} is a plain file of weights: add {wanted}")
    config = override_config({}, overrides)
    weights, place = _state_dict_in(path)
    return Subject(
        path=path,
        config=config,
        weights=weights,
        has_radius="attack.epsilon" in given,
        taken=(f"{path}: weights taken from its {place}",) if place else (),
    )


def _state_dict_in(path: Path) -> tuple[dict[str, Any], str]:
    """The weights in a file, and their place in it, as for `unwrapped`."""
    weights, place = unwrapped(read_weights_file(path))
    if weights is None:
        raise UserError(
            f"{path} holds no state dict: expected names and tensors, as torch.save of "
            f"model.state_dict() keeps them, at its top or in one of {', '.join(PLACES)}"
        )
    return weights, place


def _hash_told(log: Path, weights: str) -> str | None:
    """The hash in the event that ends a finished run; None where there is none."""
    kind, events = END_EVENTS[weights].encode(), read_table(log, "events")
    texts = [row["text"].decode() for row in events if row["kind"] == kind]
    return texts[-1].removeprefix("hash ") if texts else None
