"""A convolution of grey images whose gradient of the images costs no more than its forward pass.

On CPUs that gradient is computed for sixteen channels at a time, however few there are: of a 5 x 5
convolution of grey images fifteen sixteenths are thrown away. Here the sixteen are the pixels of a
block of 4 x 4. It is the same sum of the same products.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 4
"""Pixels of a block's side."""


class GreyConv2d(nn.Conv2d):
    """A convolution of one channel, stride 1, its images as large as its features.

    Images [N, 1, H, W], features [N, F, H, W]; the kernel has an odd side. It is torch's own where
    H and W are not multiples of `BLOCK`, and off the CPU. Not for forward-mode derivatives. Under
    autocast its weight, some hundred numbers, is cast in every pass, whoever holds others cast.
    """

    def __init__(self, num_features: int, side: int) -> None:
        super().__init__(1, num_features, side, padding=side // 2)

    def forward(self, images: Tensor) -> Tensor:
        # As torch.jit.is_tracing, which has no types.
        if torch._C._get_tracing_state() is not None or not _has_blocks(images):
            return super().forward(images)
        assert self.bias is not None
        if not torch.is_autocast_enabled("cpu"):
            return _convolved(images, self.weight, self.bias)
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return _convolved(images.to(dtype), self.weight.to(dtype), self.bias.to(dtype))

    def __prepare_scriptable__(self) -> nn.Conv2d:
        """The same layer of torch's, for torch.jit.script."""
        side = self.weight.shape[2]
        plain = nn.Conv2d(1, self.out_channels, side, padding=side // 2)
        plain.weight, plain.bias = self.weight, self.bias
        return plain


def _has_blocks(images: Tensor) -> bool:
    if images.device.type != "cpu" or images.dim() != 4 or not images.is_floating_point():
        return False
    return images.shape[2] % BLOCK == 0 and images.shape[3] % BLOCK == 0


def _convolved(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    features: Tensor = _Grey.apply(images, weight, bias)
    return features


class _Grey(torch.autograd.Function):
    generate_vmap_rule = True  # torch.func on this network works as on any other

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(images, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        images, weight, _ = inputs
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wants_images, *wants_others = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            of_images = _slope_of_images(slope, weight) if wants_images else None
            if not any(wants_others):
                return of_images, None, None
            margin = weight.shape[2] // 2
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                slope, images, weight, bias_sizes=[len(weight)], stride=[1, 1],
                padding=[margin, margin], dilation=[1, 1], transposed=False, output_padding=[0, 0],
                groups=1, output_mask=[False, *wants_others],
            )  # fmt: skip
        return of_images, of_weight, of_bias


def _slope_of_images(slope: Tensor, weight: Tensor) -> Tensor:
    margin = weight.shape[2] // 2
    blocks = functional.conv2d(slope, _of_blocks(weight), stride=BLOCK, padding=margin)
    return functional.pixel_shuffle(blocks, BLOCK)


def _of_blocks(weight: Tensor) -> Tensor:
    """The kernel from features to the pixels of a block: [BLOCK^2, features, side, side]."""
    turned = weight[:, 0].flip(1, 2)
    pads = [(x, BLOCK - 1 - x, y, BLOCK - 1 - y) for y in range(BLOCK) for x in range(BLOCK)]
    kernel = torch.stack([functional.pad(turned, pad) for pad in pads])
    return kernel.contiguous(memory_format=torch.channels_last)
