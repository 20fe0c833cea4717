"""Users' models and data sets, by dotted name, with something wrong: at once, or after a while.

`faulty` does what `fault` names on the rank `rank`, at the `call`-th forward pass of the role that
`training` tells: true for the model that is trained, false for one that is attacked.
"""

import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from mpiadv.models.preact_resnet import PreActResNet

IMAGE_SHAPE = (1, 4, 4)
NUM_CLASSES = 3


def images(
    *, root: str | None, split: str, num_samples: int = 24, shape: tuple[int, ...] = IMAGE_SHAPE
) -> tuple[Tensor, Tensor]:
    """Random images [N, 1, 4, 4] of three classes, told apart by their brightness.

    They are others where `root` is "changed".
    """
    labels = torch.arange(num_samples) % NUM_CLASSES
    noise = torch.rand(num_samples, *shape, generator=_seeded(len(split) + (root == "changed")))
    return 0.5 * noise + 0.25 * labels.reshape(-1, 1, 1, 1), labels


def images_by_pixel(
    *, root: str | None, split: str, num_samples: int = 24, shape: tuple[int, ...] = IMAGE_SHAPE
) -> tuple[Tensor, Tensor]:
    """As `images`, the channels of a pixel lying together, as in arrays [N, H, W, C]."""
    planes, labels = images(root=root, split=split, num_samples=num_samples, shape=shape)
    pixels = planes.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    return pixels.permute(0, 3, 1, 2), labels


def _rank() -> int:
    # Asked by the ranks alone: what has one process only needs no MPI.
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.rank)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ImagesAnew:
    """A map-style set that augments its images as it gives them."""

    def __init__(self, *, root: str | None, split: str) -> None:
        self._images, self._labels = images(root=root, split=split)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index] * torch.rand(()), self._labels[index]


def images_of_a_rank(*, root: str | None, split: str) -> tuple[Tensor, Tensor]:
    pixels, labels = images(root=root, split=split)
    return pixels * (1 - 0.1 * _rank()), labels


def labels_outside(*, root: str | None, split: str, num_classes: int) -> tuple[Tensor, Tensor]:
    return images(root=root, split=split)


def bright_images(*, root: str | None, split: str) -> tuple[Tensor, Tensor]:
    pixels, labels = images(root=root, split=split)
    return 255 * pixels, labels


def images_not_a_number(*, root: str | None, split: str) -> tuple[Tensor, Tensor]:
    pixels, labels = images(root=root, split=split)
    return pixels * float("nan"), labels


def no_images(*, root: str | None, split: str) -> tuple[Tensor, Tensor]:
    return torch.zeros(0, *IMAGE_SHAPE), torch.zeros(0, dtype=torch.int64)


def unreadable_images(*, root: str | None, split: str) -> tuple[Tensor, Tensor]:
    raise OSError(f"no such tape: {split}")


def small(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, num_classes))


def flat(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(image_shape), num_classes))


def wide(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, num_classes))


def raises_when_built(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    raise ValueError("no weights in the cupboard")


def raises_on_rank_1(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    if _rank() == 1:
        raise ValueError("no weights in the cupboard of rank 1")
    return small(num_classes=num_classes, image_shape=image_shape)


def returns_a_number(*, num_classes: int, image_shape: tuple[int, int, int]) -> int:
    return num_classes


class RaisesInForward(nn.Module):
    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.dense = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("the cupboard is bare")


class ReadsUnwritten(nn.Module):
    """Adds to its logits what happens to be in memory."""

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.inner = small(num_classes=num_classes, image_shape=image_shape)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits + torch.empty_like(logits)


def too_few_logits(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return small(num_classes=num_classes - 1, image_shape=image_shape)


def without_parameters(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.AvgPool1d(5), nn.ReLU())


class Faulty(nn.Module):
    """Like `small`, until something happens."""

    def __init__(
        self, inner: nn.Module, *, fault: Callable[[Tensor], Tensor], call: int, training: bool
    ) -> None:
        super().__init__()
        self.inner = inner
        self._fault = fault
        self._calls_left = call
        self._in_training = training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        # The check before the run does not count: nothing wants a gradient there.
        if self.training == self._in_training and torch.is_grad_enabled():
            self._calls_left -= 1
            if self._calls_left == 0:
                logits = self._fault(logits)
        return logits


def faulty(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    fault: str,
    rank: int,
    call: int = 10,
    training: bool = False,
) -> nn.Module:
    inner = small(num_classes=num_classes, image_shape=image_shape)
    fault_here = FAULTS[fault] if _rank() == rank else _nothing
    return Faulty(inner, fault=fault_here, call=call, training=training)


class Flipping(nn.Module):
    """Like `small`, until a bit of a weight flips, as broken memory does it."""

    def __init__(self, inner: nn.Module, *, call: int | None) -> None:
        super().__init__()
        self.inner = inner
        self._calls_left = call

    def forward(self, images: Tensor) -> Tensor:
        # Only where it is trained: attacks look at it in evaluation mode.
        if self.training and torch.is_grad_enabled() and self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left == 0:
                weight = next(self.inner.parameters()).detach()
                weight.view(torch.int32)[0, 0] ^= 1
        logits: Tensor = self.inner(images)
        return logits


def flips_a_bit(
    *, num_classes: int, image_shape: tuple[int, int, int], rank: int, call: int
) -> nn.Module:
    inner = small(num_classes=num_classes, image_shape=image_shape)
    return Flipping(inner, call=call if _rank() == rank else None)


class Slow(nn.Module):
    """Like `small`, but every forward pass takes so many milliseconds more."""

    def __init__(self, inner: nn.Module, *, milliseconds: float) -> None:
        super().__init__()
        self.inner = inner
        self._seconds = milliseconds / 1000

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self._seconds)
        logits: Tensor = self.inner(images)
        return logits


def as_if_on_hosts(ranks_per_host: int) -> None:
    """From now on each rank takes itself to be on another host than those not beside it."""
    if ranks_per_host:
        host = f"host{_rank() // ranks_per_host}"
        platform.node = lambda: host


def slow(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    milliseconds: float,
    ranks_per_host: int = 0,
) -> nn.Module:
    as_if_on_hosts(ranks_per_host)
    inner = small(num_classes=num_classes, image_shape=image_shape)
    return Slow(inner, milliseconds=milliseconds)


def pooled_resnet(
    *, num_classes: int, image_shape: tuple[int, int, int], ranks_per_host: int = 0
) -> nn.Module:
    """PreActResNet-18, whose parameters and images are large messages, on means of 8 x 8 pixels."""
    as_if_on_hosts(ranks_per_host)
    pooled = (image_shape[0], image_shape[1] // 8, image_shape[2] // 8)
    inner = PreActResNet(num_classes=num_classes, image_shape=pooled)
    return nn.Sequential(nn.AvgPool2d(8), inner)


def uneven(
    *, num_classes: int, image_shape: tuple[int, int, int], milliseconds: list[float]
) -> nn.Module:
    """Like `slow`, each rank as slow as `milliseconds` says, in rank order."""
    mine = milliseconds[_rank()]
    return slow(num_classes=num_classes, image_shape=image_shape, milliseconds=mine)


def _nothing(logits: Tensor) -> Tensor:
    return logits


def _raise(logits: Tensor) -> Tensor:
    raise RuntimeError(f"fault at {time.time()}")


def _not_a_number(logits: Tensor) -> Tensor:
    return logits * float("nan")


def _vanish(logits: Tensor) -> Tensor:
    print(f"fault at {time.time()}", file=sys.stderr, flush=True)
    os._exit(3)


def _stop(logits: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSTOP)
    return logits


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nan": _not_a_number,
    "raise": _raise,
    "stop": _stop,
    "vanish": _vanish,
}
