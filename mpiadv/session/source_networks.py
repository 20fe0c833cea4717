"""The fixed networks that batches are crafted on beside the one being trained.

Tramèr et al. 2018, "Ensemble Adversarial Training: Attacks and Defenses", section 3.4.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mpiadv.data import DataSet
from mpiadv.evaluation.subject import Network, Subject, load_network, read_subject
from mpiadv.models import freeze
from mpiadv.process.errors import UserError
from mpiadv.process.words import shape_text
from mpiadv.runlog import read_attributes
from mpiadv.settings import Config, code_words
from mpiadv.storage.run_folder import LOG_NAME, MODEL_NAMES, RAW


def load_sources(config: Config, data: DataSet, device: torch.device) -> Sequence[Network]:
    """The networks of `attack.sources`, in evaluation mode and frozen.

    Raises:
        UserError: one is no finished run, is there twice, or is of images or classes other than
            those of `data`.
    """
    folders = [Path(os.path.expanduser(folder)) for folder in config.attack.sources]
    networks = [_load(folder, config, data, device) for folder in folders]
    seen: dict[str, Path] = {}
    for folder, network in zip(folders, networks, strict=True):
        other = seen.setdefault(network.hash, folder)
        if other is not folder:
            raise UserError(
                f"attack.sources: {folder} is the network of {other} once more: name each once, as "
                "all have equal chances"
            )
    return networks


def _load(folder: Path, config: Config, data: DataSet, device: torch.device) -> Network:
    named = f"attack.sources: {folder}"
    if not (folder / LOG_NAME).is_file():
        raise UserError(
            f"{named} is no folder of a run, as {os.path.abspath(folder)} holds no {LOG_NAME}: "
            "train one there first, with output=FOLDER, or correct the name"
        )
    if not (folder / MODEL_NAMES[RAW]).is_file():
        raise UserError(f"{named} holds no {MODEL_NAMES[RAW]} yet: finish that run, with --resume")
    try:
        _require_same_images(read_attributes(folder / LOG_NAME), data)
        subject = read_subject(folder, [], None)
        _require_known(subject.config, config)
        network = load_network(_attacked(subject), data, device, config.training.precision)
    except UserError as error:
        raise UserError(f"{named}: {error}") from error
    freeze(network.model)
    network.model.eval()
    return network


def _require_same_images(told: Mapping[str, Any], data: DataSet) -> None:
    """Refuse a log that tells of other images or classes; older ones tell of none."""
    for key, value in (
        ("image_shape", shape_text(data.image_shape)),
        ("num_classes", data.num_classes),
    ):
        if told.get(key, value) != value:
            raise UserError(
                f"it was trained with {key}={told[key]}, this run has {key}={value}: sources are "
                "to be of the same images and classes"
            )


def _attacked(subject: Subject) -> Subject:
    """Attacks go through the batch norm of adversarial images, whatever evaluations do."""
    evaluation = subject.config.evaluation.model_copy(update={"branch": "adversarial"})
    return replace(subject, config=subject.config.model_copy(update={"evaluation": evaluation}))


def _require_known(source: Config, config: Config) -> None:
    """Refuse a network made by code that this run's own configuration does not name, too."""
    ours = code_words(config)
    for word in code_words(source):
        if word.startswith("model.") and word not in ours:
            raise UserError(
                f"{word} is code, and no file may choose what is run: sources are to be of "
                "registered models, or of this run's own"
            )
