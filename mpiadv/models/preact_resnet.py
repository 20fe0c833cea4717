"""PreActResNet-18 for small images (He et al. 2016). Knows no data set and no training."""

import torch
from torch import Tensor, nn

from mpiadv.models.activations import activation_of


class PreActResNet(nn.Module):
    """The usual network for CIFAR-10: images [N, C, H, W], made for 32x32; logits [N, num_classes].

    A 3x3 convolution, eight pre-activation blocks over four widths, one dense layer: He et al.
    (2016), "Identity Mappings in Deep Residual Networks", with the batch normalisation after the
    last block that robust training uses (Wong et al. 2020, Rice et al. 2020).
    """

    def __init__(
        self, *, num_classes: int, image_shape: tuple[int, int, int], activation: str = "relu"
    ) -> None:
        super().__init__()
        self._activation = activation_of(activation)
        self.first = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                _PreActBlock(*channels, stride=stride, activation=activation)
                for channels, stride in (
                    ((64, 64), 1), ((64, 64), 1), ((64, 128), 2), ((128, 128), 1),
                    ((128, 256), 2), ((256, 256), 1), ((256, 512), 2), ((512, 512), 1),
                )
            )
        )  # fmt: skip
        self.last_norm = nn.BatchNorm2d(512)
        self.dense = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self._activation(self.last_norm(self.blocks(self.first(images))))
        # A mean rather than adaptive pooling: its gradient on GPUs is deterministic for every size.
        logits: Tensor = self.dense(torch.mean(features, dim=(2, 3)))
        return logits


class _PreActBlock(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self._activation = activation_of(activation)
        self.norm1 = nn.BatchNorm2d(num_inputs)
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or num_inputs != num_outputs:
            self.shortcut = nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = self._activation(self.norm1(features))
        # Where the shape changes, the shortcut too starts from the activated features.
        skipped = features if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(self._activation(self.norm2(self.conv1(activated))))
        return residual + skipped
