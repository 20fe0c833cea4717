"""A convolution of grey images is torch's, and so are its gradients, in every precision."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.models.few_channels import GreyConv2d

SHAPE = (6, 1, 28, 28)


def pair(side: int) -> tuple[GreyConv2d, nn.Conv2d]:
    """Ours and torch's, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = GreyConv2d(32, side), nn.Conv2d(1, 32, side, padding=side // 2)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def passed(layer: nn.Module, images: Tensor, precision: str) -> list[Tensor]:
    """Features, and the gradients of images and of parameters."""
    images = images.detach().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        features = layer(images)
    loss = features.float().square().sum()
    return [features, *torch.autograd.grad(loss, [images, *layer.parameters()])]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [3, 5])
def test_it_is_torchs_convolution_in_float32(side: int, memory_format: torch.memory_format) -> None:
    images = torch.rand(SHAPE)
    ours, theirs = (
        passed(layer.to(memory_format=memory_format), images, "float32") for layer in pair(side)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_it_is_torchs_convolution_under_autocast() -> None:
    images = torch.rand(SHAPE)
    ours, theirs = (passed(layer, images, "bfloat16") for layer in pair(5))
    assert [each.dtype for each in ours] == [each.dtype for each in theirs]
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_double_precision_gradients_and_theirs_are_right() -> None:
    layer = GreyConv2d(2, 3).double()
    images = torch.rand(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    weights = tuple(layer.parameters())

    def features(given: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(("weight", "bias"), parameters, strict=True))
        return torch.func.functional_call(layer, named, (given,))

    assert torch.autograd.gradcheck(features, (images, *weights))
    assert torch.autograd.gradgradcheck(features, (images, *weights))


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    layer, _ = pair(5)
    layer.requires_grad_(False)
    images = torch.rand(SHAPE, requires_grad=True)
    functional.relu(layer(images)).sum().backward()
    assert images.grad is not None and layer.weight.grad is None and layer.bias is not None
    layer.requires_grad_(True)
    layer(images.detach()).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None
