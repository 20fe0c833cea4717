"""PreActResNet-18 for small images (He et al. 2016). Knows no data set and no training."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class PreActResNet(nn.Module):
    """The usual network for CIFAR-10: images [N, C, H, W], made for 32x32; logits [N, num_classes].

    A 3x3 convolution, eight pre-activation blocks over four widths, one dense layer: He et al.
    (2016), "Identity Mappings in Deep Residual Networks", with the batch normalisation after the
    last block that robust training uses (Wong et al. 2020, Rice et al. 2020).
    """

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            _PreActBlock(64, 64, stride=1), _PreActBlock(64, 64, stride=1),
            _PreActBlock(64, 128, stride=2), _PreActBlock(128, 128, stride=1),
            _PreActBlock(128, 256, stride=2), _PreActBlock(256, 256, stride=1),
            _PreActBlock(256, 512, stride=2), _PreActBlock(512, 512, stride=1),
        )  # fmt: skip
        self.last_norm = nn.BatchNorm2d(512)
        self.dense = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.last_norm(self.blocks(self.first(images))))
        # A mean rather than adaptive pooling: its gradient on GPUs is deterministic for every size.
        logits: Tensor = self.dense(torch.mean(features, dim=(2, 3)))
        return logits


class _PreActBlock(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(num_inputs)
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or num_inputs != num_outputs:
            self.shortcut = nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = functional.relu(self.norm1(features))
        # Where the shape changes, the shortcut too starts from the activated features.
        skipped = features if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(activated))))
        return residual + skipped
