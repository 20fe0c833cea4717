"""Wide residual networks for small images. Knows no data set and no training."""

import torch
from torch import Tensor, nn

from mpiadv.models.activations import activation_of
from mpiadv.process.errors import UserError


class WideResNet(nn.Module):
    """Images [N, C, H, W], made for 32x32; logits [N, num_classes].

    Three stages of (depth - 4) / 6 pre-activation blocks, 16, 32 and 64 times `width` channels:
    Zagoruyko and Komodakis 2016, "Wide Residual Networks", without dropout. Robust training reports
    28-10 and 34-10.

    Raises:
        UserError: `depth` is not 4 + 6 n, or there is no such activation.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        depth: int = 28,
        width: int = 10,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise UserError(f"depth={depth} of a wide residual network: expected 4 + 6 n, as 28")
        self._activation = activation_of(activation)
        channels = [16, *(stage * width for stage in (16, 32, 64))]
        self.first = nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                _WideBlock(
                    channels[stage] if number == 0 else channels[stage + 1],
                    channels[stage + 1],
                    stride=2 if stage and number == 0 else 1,
                    activation=activation,
                )
                for stage in range(3)
                for number in range(blocks)
            )
        )
        self.last_norm = nn.BatchNorm2d(channels[-1])
        self.dense = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self._activation(self.last_norm(self.blocks(self.first(images))))
        logits: Tensor = self.dense(torch.mean(features, dim=(2, 3)))
        return logits


class _WideBlock(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self._activation = activation_of(activation)
        self.norm1 = nn.BatchNorm2d(num_inputs)
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if num_inputs != num_outputs:
            self.shortcut = nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = self._activation(self.norm1(features))
        skipped = features if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(self._activation(self.norm2(self.conv1(activated))))
        return residual + skipped
