"""Random crops and mirroring of a whole batch at once. Knows no data set and no seed."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Randomly cropped and mirrored copies of images: [N, C, H, W], of the same shape.

    Each image is padded with `crop_padding` zero pixels on every side and cut back to its size at
    a random place; with `flip`, it is mirrored left to right with probability 1/2. All randomness
    comes from `generator`, which lies on the images' device. With both off, `images` itself.
    """
    if not crop_padding and not flip:
        return images
    num_images, num_channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).repeat(num_images, 1)
    columns = torch.arange(width, device=device).repeat(num_images, 1)
    if flip:
        mirrored = torch.randint(2, (num_images, 1), generator=generator, device=device)
        columns = torch.where(mirrored == 1, width - 1 - columns, columns)
    if crop_padding:
        offsets = (2, num_images, 1)
        down, right = torch.randint(
            2 * crop_padding + 1, offsets, generator=generator, device=device
        )
        rows, columns = rows + down, columns + right
        images = functional.pad(images, [crop_padding] * 4)
    samples = torch.arange(num_images, device=device)[:, None, None, None]
    channels = torch.arange(num_channels, device=device)[:, None, None]
    return images[samples, channels, rows[:, None, :, None], columns[:, None, None, :]]
