"""Residual networks of bottleneck blocks, of any depth. Knows no data set and no training."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from mpiadv.models.activations import activation_of, recomputed
from mpiadv.process.errors import UserError

_EXPANSION = 4


class BottleneckResNet(nn.Module):
    """Images [N, C, H, W] to logits [N, num_classes]; 3 x blocks + 2 layers deep.

    He et al. 2016, "Deep Residual Learning for Image Recognition", with the stride on the 3x3
    convolution and the last batch norm of each block beginning at 0: Goyal et al. 2017, as in Xie
    et al. 2019, "Feature Denoising for Improving Adversarial Robustness".

    Args:
        blocks: of each of the four stages; [3, 4, 6, 3] is ResNet-50, [3, 8, 36, 3] ResNet-152.
        stem: "imagenet", a 7x7 convolution and pooling that take images to a quarter of their size;
            "small", a 3x3 convolution that leaves them as they are.
        activation: relu or silu.
        denoise: whether the last block of each stage is followed by a denoising one.
        checkpoint: whether activations within blocks are computed twice, for less memory.

    Raises:
        UserError: an argument that makes no network.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        stem: str = "imagenet",
        activation: str = "relu",
        denoise: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or any(not isinstance(n, int) or n < 1 for n in blocks):
            raise UserError(
                f"blocks={[*blocks]}: expected those of four stages, such as [3, 4, 6, 3]"
            )
        if stem not in ("imagenet", "small"):
            raise UserError(f"stem={stem!r}: expected imagenet or small")
        self._activation, self._checkpoint = activation_of(activation), checkpoint
        is_small, channels = stem == "small", width
        size, stride, padding = (3, 1, 1) if is_small else (7, 2, 3)
        self.first = nn.Conv2d(image_shape[0], width, size, stride, padding, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.pool: nn.Module = nn.Identity() if is_small else nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for number in range(count):
                stride = 2 if stage and number == 0 else 1
                layers.append(_Bottleneck(channels, inner, stride=stride, activation=activation))
                channels = inner * _EXPANSION
            if denoise:
                layers.append(_Denoising(channels))
        self.layers = nn.ModuleList(layers)
        self.dense = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pool(self._activation(self.first_norm(self.first(images))))
        for layer in self.layers:
            is_twice = self._checkpoint and torch.is_grad_enabled()
            features = recomputed(layer, features) if is_twice else layer(features)
        logits: Tensor = self.dense(torch.mean(features, dim=(2, 3)))
        return logits


class _Bottleneck(nn.Module):
    def __init__(self, num_inputs: int, inner: int, *, stride: int, activation: str) -> None:
        super().__init__()
        num_outputs = inner * _EXPANSION
        self._activation = activation_of(activation)
        self.conv1 = nn.Conv2d(num_inputs, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, num_outputs, 1, bias=False)
        self.norm3 = _beginning_at_zero(num_outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or num_inputs != num_outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(num_outputs),
            )

    def forward(self, features: Tensor) -> Tensor:
        inner = self._activation(self.norm1(self.conv1(features)))
        inner = self._activation(self.norm2(self.conv2(inner)))
        skipped = features if self.shortcut is None else self.shortcut(features)
        return self._activation(self.norm3(self.conv3(inner)) + skipped)


class _Denoising(nn.Module):
    """Non-local means in an embedded Gaussian's eyes, and a residual: Xie et al. 2019, section 4.

    Features [N, C, H, W] weigh each other by softmax(theta phi / sqrt(C / 2)) over places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi = (nn.Conv2d(channels, channels // 2, 1, bias=False) for _ in range(2))
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = _beginning_at_zero(channels)
        for layer in (self.theta, self.phi):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        theta, phi = self.theta(features).flatten(2), self.phi(features).flatten(2)  # [N, C/2, HW]
        likeness = (theta.transpose(1, 2) @ phi / sqrt(theta.shape[1])).softmax(
            dim=2
        )  # [N, HW, HW]
        means = (features.flatten(2) @ likeness.transpose(1, 2)).reshape(features.shape)
        denoised: Tensor = self.norm(self.conv(means))
        return features + denoised


def _beginning_at_zero(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return norm
