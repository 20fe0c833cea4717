"""Networks for digits, and for MNIST of Bhat, Tsipras, Madry (2019). Know no data set."""

import torch
from torch import nn

from mpiadv.models.check import require_image_shape
from mpiadv.models.few_channels import GreyConv2d
from mpiadv.process.errors import UserError


def digits(
    *, num_classes: int, image_shape: tuple[int, int, int], batch_norm: bool = False
) -> nn.Module:
    """Two 3x3 convolutions and two dense layers, quick on one CPU thread.

    Images [N, 1, 8, 8], logits [N, num_classes]. With `batch_norm` after each convolution.

    Raises:
        UserError: the images are not 1x8x8.
    """
    require_image_shape("digits", image_shape, (1, 8, 8))
    norms = [[nn.BatchNorm2d(16)], [nn.BatchNorm2d(32)]] if batch_norm else [[], []]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        *norms[0],
        nn.ReLU(),
        # A stride instead of pooling: as robust, at less than half of the time.
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        *norms[1],
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 32, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def mnist(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    initialization: str = "madry",
    width: float = 1.0,
) -> nn.Module:
    """Two 5x5 convolutions and two dense layers: images [N, 1, 28, 28], logits [N, num_classes].

    `width` multiplies the paper's 32 and 64 channels and 1024 units, as in Madry et al. (2018),
    section 4, "capacity".

    `initialization` is "madry", as in Madry et al. (2018): weights from a normal of 0.1 cut at two
    standard deviations, biases 0.1; or "torch", that of torch's layers. With "madry" the first
    thousands of steps go by before anything is learnt; with "torch" a short schedule is enough.

    Raises:
        UserError: the images are not 1x28x28, there is no such initialisation, or `width` leaves
            no channel.
    """
    if initialization not in ("madry", "torch"):
        raise UserError(f"model mnist: initialization={initialization!r}: expected madry or torch")
    require_image_shape("mnist", image_shape, (1, 28, 28))
    first, second, units = (_sized(count, width) for count in (32, 64, 1024))
    model = nn.Sequential(
        # ReLU after pooling: the same as before it, on a quarter of the features.
        GreyConv2d(first, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(7 * 7 * second, units),
        nn.ReLU(),
        nn.Linear(units, num_classes),
    )
    if initialization == "madry":
        model.apply(_initialise)
    return model


def _sized(count: int, width: float) -> int:
    if not isinstance(width, int | float) or not 0.04 <= width <= 100:
        raise UserError(f"model mnist: width={width!r}: expected a number from 0.04 to 100")
    return int(count * width)


@torch.no_grad()
def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, 0.1)
