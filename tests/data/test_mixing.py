"""RandAugment and CutMix: functions of the seed alone, and what their authors have."""

import pytest
import torch
from torch import Tensor

from mpiadv.data.mixing import cut_mix, rand_augment


def _images(channels: int = 3) -> Tensor:
    return torch.rand(6, channels, 9, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_cut_mix_puts_a_box_of_the_image_before_into_each_and_mixes_labels_by_area(
    seed: int,
) -> None:
    images = _images()
    mixed, targets = cut_mix(images, LABELS, alpha=1.0, num_classes=4, seed=seed)
    before = images.roll(1, 0)
    is_box = (mixed == before).all(dim=1).all(dim=0)  # [H, W]
    assert torch.equal(mixed, torch.where(is_box, before, images))
    rows, columns = is_box.any(dim=1), is_box.any(dim=0)
    assert torch.equal(is_box, rows[:, None] & columns)
    kept = 1 - is_box.float().mean()
    one_hot = torch.eye(4)[LABELS]
    torch.testing.assert_close(targets, kept * one_hot + (1 - kept) * one_hot.roll(1, 0))


def test_what_images_are_to_be_taken_for_depends_on_their_shape_alone() -> None:
    _, targets = cut_mix(_images(), LABELS, alpha=0.5, num_classes=4, seed=3)
    _, others = cut_mix(1 - _images(), LABELS, alpha=0.5, num_classes=4, seed=3)
    assert torch.equal(targets, others)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_is_a_function_of_the_seed_and_keeps_the_box(
    channels: int, magnitude: int
) -> None:
    images = _images(channels)
    first, again = (rand_augment(images, num_ops=2, magnitude=magnitude, seed=1) for _ in range(2))
    other = rand_augment(images, num_ops=2, magnitude=magnitude, seed=2)
    assert torch.equal(first, again) and first.shape == images.shape
    assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1
    if magnitude:
        assert not torch.equal(first, other)


def test_each_image_is_changed_by_operations_of_its_own() -> None:
    same = _images()[:1].repeat(20, 1, 1, 1)
    changed = rand_augment(same, num_ops=2, magnitude=20, seed=0)
    assert len({image.numpy().tobytes() for image in changed}) > 10
