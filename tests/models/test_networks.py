"""Deep networks: their published sizes, and the same bits where activations are computed twice."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.models import build_model, check_model, fingerprint
from mpiadv.models.mixture import by_branch
from mpiadv.process.errors import UserError
from mpiadv.settings import ModelConfig

IMAGENET, CIFAR = (3, 224, 224), (3, 32, 32)


def build(
    name: str, image_shape: tuple[int, int, int] = CIFAR, num_classes: int = 10,
    mixture: bool = False, **arguments: Any,
) -> nn.Module:  # fmt: skip
    config = ModelConfig(name=name, arguments=arguments, mixture_batch_norm=mixture)
    return build_model(config, num_classes=num_classes, image_shape=image_shape, seed=0)


SIZES = [
    pytest.param("wide_resnet", {"depth": 28, "width": 10}, 10, 36_479_194, id="WRN-28-10"),
    pytest.param("wide_resnet", {"depth": 34, "width": 10}, 10, 46_160_474, id="WRN-34-10"),
    pytest.param("resnet", {}, 1000, 25_557_032, id="ResNet-50"),
    pytest.param("resnet", {"blocks": [3, 4, 23, 3]}, 1000, 44_549_160, id="ResNet-101"),
    pytest.param("resnet", {"blocks": [3, 8, 36, 3]}, 1000, 60_192_808, id="ResNet-152"),
]


@pytest.mark.parametrize(("name", "arguments", "num_classes", "size"), SIZES)
def test_network_has_the_published_size(
    name: str, arguments: dict[str, Any], num_classes: int, size: int
) -> None:
    with torch.device("meta"):
        from mpiadv.models import REGISTERED

        shape = CIFAR if name == "wide_resnet" else IMAGENET
        model = REGISTERED[name](num_classes=num_classes, image_shape=shape, **arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == size


SMALL = {"blocks": [1, 2, 1, 1], "width": 8, "stem": "small"}


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(model: nn.Module, *, num_natural: int = 0) -> tuple[list[Tensor], str]:
    """Gradients of a training step, and the whole state after it."""
    model.train()
    given = images().requires_grad_()
    loss = functional.cross_entropy(by_branch(model, given, num_natural), torch.arange(4))
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [*torch.autograd.grad(loss, [given, *parameters], allow_unused=True)], fingerprint(model)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("denoise", [False, True])
def test_activations_that_are_computed_twice_change_no_bit(
    denoise: bool, mixture: bool, bfloat16: bool
) -> None:
    shape = (3, 16, 16)
    plain = build("resnet", shape, mixture=mixture, denoise=denoise, **SMALL)
    for parameter in plain.parameters():  # also what begins at zero takes part
        parameter.data += 0.05 * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    twice = build("resnet", shape, mixture=mixture, denoise=denoise, checkpoint=True, **SMALL)
    twice.load_state_dict(copy.deepcopy(plain.state_dict()))
    for number in (0, 2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            (some, state), (others, same) = (
                trained(model, num_natural=number) for model in (plain, twice)
            )
        assert state == same
        assert [g is None for g in some] == [g is None for g in others]
        pairs = zip(some, others, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs if a is not None and b is not None)


def test_denoising_blocks_begin_as_nothing() -> None:
    shape = (3, 16, 16)
    bare, denoising = (build("resnet", shape, denoise=on, **SMALL) for on in (False, True))
    own = {name for name, _ in denoising.named_parameters() if "theta" in name or "phi" in name}
    assert len(own) == 8
    check_model(denoising, shape, 10)
    layers = [layer for layer in denoising.layers if not hasattr(layer, "theta")]
    denoising.layers = nn.ModuleList(layers)
    denoising.load_state_dict(bare.state_dict())
    whole = build("resnet", shape, denoise=True, **SMALL)
    kept = iter(layers)
    for place, layer in enumerate(whole.layers):
        if not hasattr(layer, "theta"):
            whole.layers[place] = next(kept)
    whole.first, whole.first_norm, whole.dense = bare.first, bare.first_norm, bare.dense
    assert torch.equal(whole.eval()(images()), bare.eval()(images()))


def test_denoising_is_a_mean_over_places_weighed_by_likeness() -> None:
    """Xie et al. 2019, equation 1, place by place."""
    model = build("resnet", (3, 16, 16), denoise=True, **SMALL).eval()
    (block, *_) = [layer for layer in model.layers if hasattr(layer, "theta")]
    nn.init.ones_(block.norm.weight)
    features = torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(1))
    theta, phi = block.theta(features), block.phi(features)
    expected = torch.zeros_like(features)
    for n in range(2):
        for i in range(9):
            at = theta[n].flatten(1)[:, i]
            weights = torch.stack([at @ phi[n].flatten(1)[:, j] / 4 for j in range(9)]).softmax(0)
            expected[n].view(32, 9)[:, i] = (features[n].view(32, 9) * weights).sum(dim=1)
    torch.testing.assert_close(block(features), features + block.norm(block.conv(expected)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("wide_resnet", {"depth": 10, "width": 1}), ("resnet", SMALL), ("preact_resnet18", {})],
)
def test_silu_is_another_function_of_the_same_weights(name: str, arguments: dict[str, Any]) -> None:
    relu, silu = (build(name, activation=each, **arguments).eval() for each in ("relu", "silu"))
    assert fingerprint(relu) == fingerprint(silu)
    check_model(silu, CIFAR, 10)
    some = torch.rand(2, *CIFAR, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(relu(some), silu(some))


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("wide_resnet", {"depth": 20}, r"depth=20 of a wide residual network: expected 4 \+ 6 n"),
        ("resnet", {"blocks": [3, 4]}, r"blocks=\[3, 4\]: expected those of four stages"),
        ("resnet", {"stem": "huge"}, "stem='huge': expected imagenet or small"),
        ("resnet", {"activation": "gelu"}, "activation='gelu': expected one of relu, silu"),
        ("timm:resnet18", {}, "needs the package timm: pip install timm"),
    ],
)
def test_arguments_that_make_no_network_are_refused(
    name: str, arguments: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        build(name, **arguments)
