"""The networks of an evaluation on their way from a file to a device. Knows no attack."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mpiadv.attacks import Precision
from mpiadv.data import DataSet
from mpiadv.evaluation.subject import Subject, fitted, load_into
from mpiadv.models import build_model, device_of
from mpiadv.session.rehearsal import FEW, Sample, rehearse_evaluation
from mpiadv.storage.checkpoint import is_checkpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A subject's model on the device, its hash, and lines about its weights."""

    model: nn.Module
    hash: str
    taken: tuple[str, ...]


def load_network(subject: Subject, data: DataSet, device: torch.device) -> Network:
    """Build a subject's model, and put its weights into it.

    Raises:
        UserError: they do not fit, or are no numbers.
    """
    model = build_model(
        subject.config.model,
        num_classes=data.num_classes,
        image_shape=data.image_shape,
        seed=subject.config.seed,
    )
    subject = fitted(subject, model)
    found = load_into(model, subject)
    model.to(device)
    return Network(model=model, hash=found, taken=subject.taken)


def try_network(
    model: nn.Module, data: DataSet, precision: Precision, *, climbs: bool
) -> list[str]:
    """Try a model as the attacks use it; what of it speaks against their figures.

    Raises:
        UserError: it cannot be used so; see `rehearse_evaluation`.
    """
    images, labels = data.test.batch(np.arange(min(FEW, data.test.num_samples)))
    device = device_of(model)
    given = Sample(
        images=images.to(device),
        labels=labels.to(device),
        num_classes=data.num_classes,
        precision=precision,
    )
    return rehearse_evaluation(model, given, needs_gradient=climbs)


def overrides_for(path: Path, overrides: Sequence[str]) -> list[str]:
    """A network that brings its own configuration keeps its model; a plain file takes ours."""
    if os.path.isdir(path) or is_checkpoint(path):
        return [override for override in overrides if not override.startswith("model.")]
    return list(overrides)
