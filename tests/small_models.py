"""Users' models, by dotted name, for tests of whole runs: small, and slow when a test says so."""

import os
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mpiadv.models.small import digits as plain_digits

PAUSES = "MPIADV_TEST_PAUSES"
"""Environment variable that names one of `PAUSE_SECONDS`; without it models do not pause."""

STRAGGLING_FORWARD = 14

_random = random.Random()

PAUSE_SECONDS: dict[str, Callable[[int, bool], float]] = {
    "": lambda forward, is_attacked: 0.0,
    "random": lambda forward, is_attacked: 0.01 * _random.random() * (_random.random() < 0.1),
    # Long enough that the trainer takes the ticket for lost and crafts it, too.
    "straggler": lambda forward, is_attacked: 4.0 * (forward == STRAGGLING_FORWARD),
    "attacks": lambda forward, is_attacked: 0.03 * is_attacked,
}
"""Seconds that the n-th forward pass of a model takes longer, of an attack or not."""


class Pausing(nn.Module):
    """A model whose forward pass takes longer now and then."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._num_forwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self._num_forwards += 1
        pause = PAUSE_SECONDS[os.environ.get(PAUSES, "")]
        seconds = pause(self._num_forwards, images.requires_grad)
        if seconds:
            time.sleep(seconds)
        logits: Tensor = self.inner(images)
        return logits


def digits(
    *, num_classes: int, image_shape: tuple[int, int, int], batch_norm: bool = False
) -> nn.Module:
    """The network for digits."""
    return Pausing(
        plain_digits(num_classes=num_classes, image_shape=image_shape, batch_norm=batch_norm)
    )


def batch_norm(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """All that depends on a model's mode, and a buffer that no checkpoint of torch would save."""
    return Pausing(_BatchNormAndDropout(num_classes, image_shape))


def random_always(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Draws in evaluation mode too, from each of the streams that a model may draw from."""
    return nn.Sequential(RandomAlways(), digits(num_classes=num_classes, image_shape=image_shape))


class RandomAlways(nn.Module):
    """Adds noise to images, by torch, by numpy and by Python's own `random`."""

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn_like(images) * random.uniform(0.05, 0.1)
        return images + noise + torch.from_numpy(np.random.normal(0, 0.1, 8)).float()


class _BatchNormAndDropout(nn.Module):
    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.convolution = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.dense = nn.Linear(8 * height * width, num_classes)
        self.mean_image: Tensor
        self.register_buffer("mean_image", torch.zeros(image_shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean_image.lerp_(images.mean(dim=0), 0.1)
        features = self.norm(self.convolution(images - self.mean_image)).relu()
        logits: Tensor = self.dense(self.dropout(features.flatten(1)))
        return logits
