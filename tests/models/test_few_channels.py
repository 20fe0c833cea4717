"""A convolution of grey images is torch's, and so are its gradients, in every precision."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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
    """And as exact as torch's, whose gradients vary with what instructions a processor has."""
    torch.manual_seed(1)
    images = torch.rand(SHAPE)
    exact = passed(pair(5)[1], images, "float32")
    ours, theirs = (passed(layer, images, "bfloat16") for layer in pair(5))
    assert [each.dtype for each in ours] == [each.dtype for each in theirs]
    for own, torchs, true in zip(ours, theirs, exact, strict=True):
        assert (own.float() - torchs.float()).abs().max() <= 0.02 * true.abs().max()
        assert error(own, true) <= 1.05 * error(torchs, true)


def error(found: Tensor, exact: Tensor) -> float:
    """Root of the mean squared difference."""
    return float((found.detach().float() - exact.detach()).square().mean().sqrt())


def test_double_precision_gradients_and_theirs_are_right() -> None:
    layer = GreyConv2d(2, 3).double()
    images = torch.rand(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    weights = tuple(layer.parameters())

    def features(given: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(("weight", "bias"), parameters, strict=True))
        return torch.func.functional_call(layer, named, (given,))

    assert torch.autograd.gradcheck(features, (images, *weights))
    assert torch.autograd.gradgradcheck(features, (images, *weights))


class Called(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which operations are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


OF_IMAGES, OF_WEIGHTS = "pixel_shuffle", "convolution_backward"


@pytest.mark.parametrize("of_images", [True, False])
@pytest.mark.parametrize("of_weights", [True, False])
def test_gradients_that_nobody_wants_are_not_computed(of_images: bool, of_weights: bool) -> None:
    layer, _ = pair(5)
    layer.requires_grad_(of_weights)
    with Called() as called:
        features = layer(torch.rand(SHAPE, requires_grad=of_images))
        if of_images or of_weights:
            features.sum().backward()
    assert (OF_IMAGES in called.names) is of_images
    assert (OF_WEIGHTS in called.names) is of_weights


def test_it_goes_through_function_transforms() -> None:
    images = torch.rand(SHAPE)

    def loss(parameters: dict[str, Tensor], image: Tensor, layer: nn.Module) -> Tensor:
        features: Tensor = torch.func.functional_call(layer, parameters, (image[None],))
        return features.square().sum()

    ours, theirs = (
        torch.func.vmap(torch.func.grad(partial(loss, layer=layer), argnums=1), in_dims=(None, 0))(
            dict(layer.named_parameters()), images
        )
        for layer in pair(5)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize(
    "export", [torch.jit.script, partial(torch.jit.trace, example_inputs=torch.rand(SHAPE))]
)
def test_it_can_be_exported(export: Callable[[nn.Module], Any]) -> None:
    layer, theirs = pair(5)
    images, file = torch.rand(SHAPE), BytesIO()
    torch.jit.save(export(layer), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(images), theirs(images))


@pytest.mark.parametrize(
    "images", [torch.ones(SHAPE, dtype=torch.int64), torch.ones(SHAPE, dtype=torch.float64)]
)
def test_images_of_another_type_are_refused_as_by_torch(images: Tensor) -> None:
    with pytest.raises(RuntimeError, match="should be the same"):
        pair(5)[0](images)


def test_images_that_have_no_blocks_go_torchs_way() -> None:
    images = torch.rand(2, 1, 30, 27)
    ours, theirs = (passed(layer, images, "float32") for layer in pair(5))
    assert all(map(torch.equal, ours, theirs))


def test_backward_inside_autocast_is_as_forward_was() -> None:
    images = torch.rand(SHAPE, requires_grad=True)
    gradients = []
    for layer in pair(5):
        loss = layer(images).square().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            gradients.append(torch.autograd.grad(loss, images)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-4)
