"""mpiadv.attack: in its ball, and leaving everything else as it was."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from global_state import state
from refusals import refusal
from torch import nn

import mpiadv


class Odd(nn.Module):
    """Draws at random, counts its calls, and is partly in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))
        self.register_buffer("calls", torch.zeros(1))
        self.layers[1].eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(images + 0.01 * torch.randn_like(images))  # type: ignore[no-any-return]


IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])
ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


@pytest.mark.parametrize("loss", ["ce", "margin", "kl", "squares"])
@pytest.mark.parametrize("norm", ORDERS)
def test_attack_stays_in_its_ball_and_leaves_everything_as_it_was(norm: Any, loss: Any) -> None:
    model = Odd()
    model.layers[2].weight.grad = torch.ones(3, 16)
    model.layers[2].bias.requires_grad_(False)

    def looks() -> list[Any]:
        modes = [layer.training for layer in model.modules()]
        values = [value.tolist() for value in model.state_dict().values()]
        gradients = [(each.requires_grad, each.grad is None) for each in model.parameters()]
        return [modes, values, gradients, *state()]

    before = looks()
    given = {"epsilon": "1/10", "norm": norm, "num_steps": 5, "step_size": 0.004, "loss": loss}
    found = [mpiadv.attack(model, IMAGES, LABELS, **given) for _ in range(2)]
    assert looks() == before
    assert torch.equal(*found) and not torch.equal(found[0], IMAGES)
    assert found[0].min() >= 0 and found[0].max() <= 1
    lengths = torch.linalg.vector_norm((found[0] - IMAGES).flatten(1), ord=ORDERS[norm], dim=1)
    assert lengths.max() <= 0.1 + 1e-6
    other = mpiadv.attack(model, IMAGES, LABELS, **given, seed=1)
    assert not torch.equal(other, found[0])


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_attack_finds_the_same_whatever_mode_its_caller_is_in(
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    model = Odd()
    expected = mpiadv.attack(model, IMAGES, LABELS, epsilon=0.1, loss="kl")
    with mode():
        given = IMAGES.clone(), LABELS.clone()
        found = mpiadv.attack(model, *given, epsilon=0.1, loss="kl")
    assert torch.equal(found, expected)


def made_in_inference_mode() -> Odd:
    with torch.inference_mode():
        return Odd()


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "bytes": (
        lambda: mpiadv.attack(Odd(), (255 * IMAGES).byte(), LABELS, epsilon=0.1),
        r"images are torch.uint8 \[5, 1, 4, 4\]: expected float32 \[N, C, H, W\]",
    ),
    "not_pixels": (
        lambda: mpiadv.attack(Odd(), IMAGES - 0.5, LABELS, epsilon=0.1), r"in \[0, 1\]",
    ),
    "labels": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS[:4], epsilon=0.1), r"expected int64 \[5\]",
    ),
    "label_of_no_class": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS + 1, epsilon=0.1),
        "^labels range from 1 to 3: the model has 3 classes, expected 0 to 2",
    ),
    "negative_label": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS - 1, epsilon=0.1), "^labels range from -1 to 1",
    ),
    "seed": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, seed=-1),
        "^seed=-1: expected a whole number of at least 0",
    ),
    "model_of_other_images": (
        lambda: mpiadv.attack(Odd(), IMAGES[..., :2], LABELS, epsilon=0.1),
        "^model Odd, given 1 image of 1x4x2, fails: ",
    ),
    "model_of_other_numbers": (
        lambda: mpiadv.attack(Odd().double(), IMAGES, LABELS, epsilon=0.1),
        "^model Odd, given 1 image of 1x4x4, fails: ",
    ),
    "no_logits": (
        lambda: mpiadv.attack(torch.nn.Flatten(0), IMAGES, LABELS, epsilon=0.1),
        r"^model: returns \[16\] for one image: expected logits \[1, K\]",
    ),
    "model_without_gradients": (
        lambda: mpiadv.attack(made_in_inference_mode(), IMAGES, LABELS, epsilon=0.1),
        r"^model: layers\.1\.weight was made in torch\.inference_mode\(\), so nothing has",
    ),
    "steps": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, num_steps=0),
        "^num_steps=0: expected a whole number above 0",
    ),
    "radius": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=-1), "^epsilon=-1: expected a number",
    ),
    "numpy_images": (
        lambda: mpiadv.attack(Odd(), IMAGES.numpy(), LABELS, epsilon=0.1),
        r"^images: expected a torch\.Tensor, not a ndarray",
    ),
    "numpy_labels": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS.numpy(), epsilon=0.1),
        r"^labels: expected a torch\.Tensor, not a ndarray",
    ),
    "function_as_a_model": (
        lambda: mpiadv.attack(torch.relu, IMAGES, LABELS, epsilon=0.1),  # type: ignore[arg-type]
        r"^model: expected a torch\.nn\.Module, not a builtin_function",
    ),
    "norm": (
        lambda: mpiadv.attack(Odd(), IMAGES, LABELS, epsilon=0.1, norm="l3"),  # type: ignore[arg-type]
        "norm='l3'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "told"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_a_user_error_of_one_line(call: Callable[[], object], told: str) -> None:
    assert re.search(told, refusal(call))
