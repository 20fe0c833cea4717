"""The L1 ball, the margin loss and moved images, against what they are by definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpiadv.attacks.l1 import L1, drop_blocked
from mpiadv.attacks.losses import LOSSES
from mpiadv.attacks.spatial import Placement, place, placements


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _nearest_by_sorting(delta: Tensor, epsilon: float) -> Tensor:
    """Duchi et al. 2008, figure 1, in double precision."""
    rows = delta.flatten(1).double()
    descending = rows.abs().sort(dim=1, descending=True).values
    counts = torch.arange(1, rows.shape[1] + 1)
    thresholds = (descending.cumsum(dim=1) - epsilon) / counts
    rho = (descending > thresholds).sum(dim=1) - 1
    theta = thresholds.gather(1, rho[:, None]).clamp(min=0)
    return (rows.sign() * (rows.abs() - theta).clamp(min=0)).reshape(delta.shape)


@given(
    seed=st.integers(0, 2**32), epsilon=st.floats(0.125, 30, width=32), scale=st.floats(1e-3, 10)
)
@settings(max_examples=60, deadline=None)
def test_l1_projection_is_the_nearest_point(seed: int, epsilon: float, scale: float) -> None:
    delta = scale * _noise(seed, 3, 2, 4, 5)
    projected = L1().project(delta, epsilon)
    assert projected.abs().sum((1, 2, 3)).max() <= epsilon * (1 + 1e-5) + 1e-6
    assert torch.allclose(
        projected.double(), _nearest_by_sorting(delta, epsilon), atol=1e-5 * scale
    )


def test_l1_projection_leaves_what_is_inside() -> None:
    delta = 0.01 * _noise(0, 3, 1, 4, 4)
    assert torch.equal(L1().project(delta, 1.0), delta)


def test_l1_start_is_uniform_in_the_ball() -> None:
    images = torch.zeros(4000, 1, 1, 2)
    delta = L1().random(images, 3.0, torch.Generator().manual_seed(0))
    radii = (delta.abs().sum((1, 2, 3)) / 3).sort().values
    # In n dimensions the share of the ball within radius r is r ** n.
    assert (radii**2 - torch.linspace(0, 1, 4000)).abs().max() < 0.04
    assert delta.mean((0, 1, 2)).abs().max() < 0.1
    assert radii.max() <= 1


def test_l1_step_moves_the_pixels_with_the_largest_gradients() -> None:
    gradient = _noise(1, 2, 3, 10, 10)
    step = L1().ascend(gradient, 0.6)
    assert torch.allclose(step.abs().sum((1, 2, 3)), torch.tensor(0.6))
    for row, slope in zip(step.flatten(1), gradient.flatten(1), strict=True):
        moved = row.nonzero().flatten()
        assert set(moved.tolist()) == set(slope.abs().topk(3).indices.tolist())
        assert torch.equal(row[moved].sign(), slope[moved].sign())


def test_l1_step_is_zero_where_the_gradient_is_and_lets_nan_through() -> None:
    gradient = torch.zeros(2, 1, 4, 4)
    assert torch.equal(L1().ascend(gradient, 1.0), gradient)
    gradient[0, 0, 1, 1] = float("nan")
    delta = L1().ascend(gradient, 1.0)
    assert delta[0].isnan().any() and not delta[1].isnan().any()
    assert L1().project(delta, 0.5)[0].isnan().any()


def test_blocked_pixels_do_not_use_up_a_sparse_step() -> None:
    images = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5]).reshape(1, 1, 1, 5)
    gradient = torch.tensor([-1.0, 2.0, -3.0, 4.0, 5.0]).reshape(1, 1, 1, 5)
    assert drop_blocked(gradient, images).flatten().tolist() == [0, 2, -3, 0, 5]


def test_margin_is_the_best_wrong_logit_less_the_correct_one() -> None:
    logits = _noise(2, 6, 5)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    wrong = [
        max(float(row[k]) for k in range(5) if k != y)
        for row, y in zip(logits, labels, strict=True)
    ]
    expected = sum(w - float(row[y]) for w, row, y in zip(wrong, logits, labels, strict=True))
    margin = LOSSES["margin"].function(logits.requires_grad_(), labels)
    assert margin.item() == pytest.approx(expected, rel=1e-5)
    (slope,) = torch.autograd.grad(margin, logits)
    assert torch.equal(slope.sum(dim=1), torch.zeros(6))
    assert torch.equal(slope[range(6), labels], -torch.ones(6))


def test_unmoved_image_is_the_image() -> None:
    images = _noise(3, 2, 3, 6, 9).sigmoid()
    assert torch.allclose(place(images, Placement(degrees=0, right=0, down=0)), images, atol=1e-6)


def test_shift_moves_to_the_right_and_down_and_leaves_black() -> None:
    images = _noise(4, 2, 1, 5, 8).sigmoid()
    moved = place(images, Placement(degrees=0, right=2, down=1))
    assert torch.allclose(moved[..., 1:, 2:], images[..., :-1, :-2], atol=1e-5)
    assert moved[..., :1, :].abs().max() < 1e-5 and moved[..., :2].abs().max() < 1e-5


def test_quarter_turn_is_exact_and_counter_clockwise() -> None:
    images = _noise(5, 2, 1, 7, 7).sigmoid()
    turned = place(images, Placement(degrees=90, right=0, down=0))
    assert torch.allclose(turned, torch.rot90(images, 1, dims=(2, 3)), atol=1e-5)


def test_turned_image_keeps_its_shape_where_it_is_no_square() -> None:
    images = torch.zeros(1, 1, 21, 41)
    images[..., 10, 15:26] = 1.0  # a horizontal bar of 11 pixels
    turned = place(images, Placement(degrees=90, right=0, down=0))
    assert turned[0, 0, 5:16, 20].min() > 0.99 and turned.sum() == pytest.approx(11, abs=0.01)


def test_turn_comes_before_the_shift() -> None:
    images = _noise(6, 1, 1, 9, 9).sigmoid()
    both = place(images, Placement(degrees=90, right=2, down=0))
    turned = place(images, Placement(degrees=90, right=0, down=0))
    assert torch.allclose(both, place(turned, Placement(degrees=0, right=2, down=0)), atol=1e-5)


def test_grid_holds_every_angle_with_every_shift() -> None:
    grid = placements(max_degrees=30, num_angles=31, max_pixels=3, num_shifts=5)
    assert len(set(grid)) == len(grid) == 775
    assert Placement(degrees=0, right=0, down=0) in grid
    (single,) = placements(max_degrees=30, num_angles=1, max_pixels=3, num_shifts=1)
    assert single == Placement(degrees=0, right=0, down=0)
    assert {spot.degrees for spot in grid} == {float(n) for n in np.linspace(-30, 30, 31)}
    assert max(math.hypot(spot.right, spot.down) for spot in grid) == pytest.approx(18**0.5)
