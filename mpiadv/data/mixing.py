"""RandAugment and CutMix, by torchvision's own transforms, on a whole batch. Knows no data set.

All that they draw comes from torch's global stream on the CPU, which is seeded here.
"""

import torch
from torch import Tensor


def rand_augment(images: Tensor, *, num_ops: int, magnitude: int, seed: int) -> Tensor:
    """Images float32 [N, C, H, W] in [0, 1], each changed by operations of its own.

    Cubuk et al. 2020, "RandAugment: Practical Automated Data Augmentation with a Reduced Search
    Space".
    """
    from torchvision.transforms.v2 import RandAugment  # takes a while to load

    change = RandAugment(num_ops=num_ops, magnitude=magnitude)
    torch.default_generator.manual_seed(seed)
    return torch.stack([change(image) for image in images]).clamp(0, 1)


def cut_mix(
    images: Tensor, labels: Tensor, *, alpha: float, num_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Images with a box of the image before in each, and labels by area: float32 [N, K].

    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features"; the box is the same in all images [N, C, H, W] of a batch.
    """
    from torchvision.transforms.v2 import CutMix

    torch.default_generator.manual_seed(seed)
    mixed, targets = CutMix(alpha=alpha, num_classes=num_classes)(images, labels)
    return mixed, targets
