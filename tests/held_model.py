"""A user's model that is slow for as long as a file exists, so that a test can hold a run up."""

import time
from pathlib import Path

from bad_parts import small
from torch import Tensor, nn


class Held(nn.Module):
    """Like `small`, but as long as the file exists every forward pass takes 0.1 s more."""

    def __init__(self, inner: nn.Module, *, file: Path) -> None:
        super().__init__()
        self.inner = inner
        self._file = file

    def forward(self, images: Tensor) -> Tensor:
        if self._file.exists():
            time.sleep(0.1)
        logits: Tensor = self.inner(images)
        return logits


def held(*, num_classes: int, image_shape: tuple[int, int, int], file: str) -> nn.Module:
    return Held(small(num_classes=num_classes, image_shape=image_shape), file=Path(file))
