"""What makes figures say less than they seem to, apart from gradient masking.

A network that is random, data that lack classes, and what AutoAttack's authors warn of.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.survivors import Warned
from mpiadv.models.oddities import randomness
from mpiadv.models.random_streams import streams_kept
from mpiadv.process.errors import abridged


def chance(classifier: Classifier, images: Tensor) -> list[str]:
    """Whether the network gives the same images, float32 [N, C, H, W], other logits."""
    with streams_kept(images.device), torch.no_grad():
        return randomness(classifier.model, lambda seed: classifier.logits(images, seed=seed))


def told_by_authors(warnings: Sequence[Warned]) -> list[str]:
    """Each warning of AutoAttack's authors once, whatever numbers it holds."""
    times: dict[str, list[str]] = {}
    for warned in sorted(warnings, key=lambda each: (each.batch, each.attack)):
        times.setdefault(re.sub(r"[0-9]+", "#", warned.text), []).append(warned.text)
    return [
        f"AutoAttack's authors: {texts[0]}" + (f" ({len(texts)} times)" if len(texts) > 1 else "")
        for texts in times.values()
    ]


def doubts_of(findings: Findings, names: Sequence[str]) -> Iterator[str]:
    """What speaks against figures of natural images; `names` are those of the classes."""
    count = int((findings.natural_predictions < 0).sum())
    if count:
        yield (
            f"the logits of {count} of {findings.num_samples} natural images are not numbers: they "
            "count as wrong, and gradients of such a network mislead"
        )
    labels, seen = np.unique(findings.labels), np.unique(findings.natural_predictions)
    if findings.num_samples == 1:
        return
    if len(labels) == 1:
        yield (
            f"all {findings.num_samples} images are of class {names[labels[0]]}: a network that "
            "always says so is never wrong"
        )
    elif len(seen) == 1 and seen[0] >= 0:
        yield (
            f"the network takes every natural image for class {names[seen[0]]}: the figures are "
            "the share of that class"
        )


def missing_classes(findings: Findings, names: Sequence[str]) -> Iterator[str]:
    """Which of the data set's classes no image is of, where they are of several."""
    present = set(findings.labels.tolist())
    missing = sorted(set(range(len(names))) - present)
    if missing and (len(present) > 1 or findings.num_samples == 1):
        named = abridged([names[label] for label in missing])
        yield (
            f"no image is of {len(missing)} of the {len(names)} classes ({named}): the figures "
            "do not tell of them"
        )
