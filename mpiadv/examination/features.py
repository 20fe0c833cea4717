"""What a network's gradients show: of images, under attack, and from noise. Draws nothing.

Robust networks have features that people can see: Tsipras et al. 2019, "Robustness May Be at Odds
with Accuracy", section 4; Engstrom et al. 2019, "Adversarial Robustness as a Prior for Learned
Representations".
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mpiadv.attacks import LOSSES, NORMS, Attack, Climb
from mpiadv.attacks.l1 import drop_blocked
from mpiadv.contract.tickets import pass_seed
from mpiadv.evaluation.accuracy import frozen
from mpiadv.evaluation.crafting import Classifier, climbed
from mpiadv.settings import Precision

NUM_ASCENT_STEPS = 45
"""Of class visualisations: Goodwin et al. 2020 take as many."""

ASCENT_SIZE = 0.02
"""Length of such a step in L1, as a share of the number of values of an image."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Of one network; images and slopes are float32 [N, C, H, W].

    Attributes:
        slopes: gradient of the cross-entropy at natural images, by the pixels.
        adversarial: those images under attack.
        found: classes of them, int64 [N].
        classes: an image for each class, climbed to from noise.
    """

    slopes: Pixels
    adversarial: Pixels
    found: npt.NDArray[np.int64]
    classes: Pixels


def features_of(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    num_classes: int,
    seed: int,
    precision: Precision,
) -> Features:
    """What a model's gradients show on images float32 [N, C, H, W] in [0, 1], labels int64 [N].

    The model is looked at in evaluation mode, and left as it was.
    """
    classifier = Classifier(model=model, precision=precision)
    with frozen(model):
        slopes = _climb(classifier, images, labels, seed).slope(images, seed=seed).gradient
        adversarial = climbed(classifier, attack, images, labels, seed=seed)
        found = classifier.predictions(adversarial, seed=seed)
        classes = _from_noise(classifier, images[:1].shape[1:], num_classes, seed, images.device)
    return Features(
        slopes=slopes.cpu().numpy(),
        adversarial=adversarial.cpu().numpy(),
        found=found.cpu().numpy(),
        classes=classes.cpu().numpy(),
    )


def _from_noise(
    classifier: Classifier,
    shape: torch.Size,
    num_classes: int,
    seed: int,
    device: torch.device,
) -> Tensor:
    """An image for each class: the same noise, moved in sparse steps down the cross-entropy."""
    generator = torch.Generator().manual_seed(seed)
    noise = (0.5 + 0.25 * torch.randn(shape, generator=generator)).clamp(0, 1).to(device)
    labels = torch.arange(num_classes, device=device)
    images = noise.expand(num_classes, *shape).contiguous()
    climb = _climb(classifier, images, labels, seed)
    look = climb.looking(pass_seed(seed, number) for number in itertools.count(1))
    for _ in range(NUM_ASCENT_STEPS):
        downhill = drop_blocked(-look(images).gradient, images)
        images = (images + NORMS["l1"].ascend(downhill, ASCENT_SIZE * shape.numel())).clamp(0, 1)
    return images


def _climb(classifier: Classifier, images: Tensor, labels: Tensor, seed: int) -> Climb:
    return Climb(
        model=classifier.model,
        precision=classifier.precision,
        loss=LOSSES["ce"],
        labels=labels,
        natural=images,
        natural_seed=seed,
    )
