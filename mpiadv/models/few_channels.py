"""A convolution of few channels whose gradient of the images costs no more than its forward pass.

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

    The kernel has an odd side, and images have sides that are multiples of `BLOCK`.
    """

    def __init__(self, num_features: int, side: int) -> None:
        super().__init__(1, num_features, side, padding=side // 2)

    def forward(self, images: Tensor) -> Tensor:
        assert self.bias is not None
        if images.device.type != "cpu":
            return super().forward(images)
        is_cast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_cast else images.dtype
        given = (each.to(dtype) for each in (images, self.weight, self.bias))
        features: Tensor = _Grey.apply(*given)
        return features


class _Grey(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return functional.conv2d(images, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wants_images, *wants_others = ctx.needs_input_grad
        margin, features = weight.shape[2] // 2, len(weight)
        of_images = of_weight = of_bias = None
        if wants_images:
            blocks = functional.conv2d(slope, _of_blocks(weight), stride=BLOCK, padding=margin)
            of_images = functional.pixel_shuffle(blocks, BLOCK)
        if any(wants_others):
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                slope, images, weight, [features], [1, 1], [margin, margin], [1, 1], False, [0, 0],
                1, [False, *wants_others],
            )  # fmt: skip
        return of_images, of_weight, of_bias


def _of_blocks(weight: Tensor) -> Tensor:
    """The kernel from features to the pixels of a block: [BLOCK^2, features, side, side]."""
    turned = weight[:, 0].flip(1, 2)
    pads = [(x, BLOCK - 1 - x, y, BLOCK - 1 - y) for y in range(BLOCK) for x in range(BLOCK)]
    kernel = torch.stack([functional.pad(turned, pad) for pad in pads])
    return kernel.contiguous(memory_format=torch.channels_last)
