"""The network of Bhat, Tsipras, Madry (2019), for MNIST. Knows no data set and no training."""

import torch
from torch import nn

from mpiadv.errors import UserError
from mpiadv.models.shapes import require_image_shape

IMAGE_SHAPE = (1, 28, 28)


def mnist(
    *, num_classes: int, image_shape: tuple[int, int, int], initialization: str = "madry"
) -> nn.Module:
    """Two 5x5 convolutions and two dense layers: images [N, 1, 28, 28], logits [N, num_classes].

    `initialization` is "madry", as in Madry et al. (2018): weights from a normal of 0.1 cut at two
    standard deviations, biases 0.1; or "torch", that of torch's layers. With "madry" the first
    thousands of steps go by before anything is learnt; with "torch" a short schedule is enough.

    Raises:
        UserError: the images are not 1x28x28, or there is no such initialisation.
    """
    if initialization not in ("madry", "torch"):
        raise UserError(f"model mnist: initialization={initialization!r}: expected madry or torch")
    require_image_shape("mnist", image_shape, IMAGE_SHAPE)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.ReLU(),
        nn.Linear(1024, num_classes),
    )
    if initialization == "madry":
        model.apply(_initialise)
    return model


@torch.no_grad()
def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, 0.1)
