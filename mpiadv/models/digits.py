"""A small network for 8x8 digits, quick on one CPU thread. Knows no data set and no training."""

from torch import nn

from mpiadv.models.check import require_image_shape

IMAGE_SHAPE = (1, 8, 8)


def digits(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Two 3x3 convolutions and two dense layers: images [N, 1, 8, 8], logits [N, num_classes].

    Raises:
        UserError: the images are not 1x8x8.
    """
    require_image_shape("digits", image_shape, IMAGE_SHAPE)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        # A stride instead of pooling: as robust, at less than half of the time.
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 32, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
