"""Crops and mirrorings are those a loop over the images would make, and only the generator's."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mpiadv.data import augment


def augmented(
    images: Tensor, seed: int = 0, *, crop_padding: int = 0, flip: bool = False
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(images, crop_padding=crop_padding, flip=flip, generator=generator)


def crops(image: Tensor, padding: int, flips: tuple[bool, ...]) -> list[Tensor]:
    """Every image [C, H, W] that padding, cropping and mirroring can make of one."""
    _, height, width = image.shape
    found = []
    for flip in flips:
        padded = functional.pad(image.flip(-1) if flip else image, [padding] * 4)
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                found.append(padded[:, top : top + height, left : left + width])
    return found


@pytest.mark.parametrize(
    ("crop_padding", "flip"), [(0, True), (1, False), (2, True)], ids=["flip", "crop", "both"]
)
def test_every_outcome_occurs_and_no_other(crop_padding: int, flip: bool) -> None:
    image = torch.rand(3, 5, 4)
    possible = crops(image, crop_padding, (False, True) if flip else (False,))
    images = augmented(image.repeat(600, 1, 1, 1), crop_padding=crop_padding, flip=flip)
    matches = torch.stack([(images == one).flatten(1).all(dim=1) for one in possible])
    assert matches.any(dim=0).all()
    assert matches.any(dim=1).all()


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(1000, 1, 2, 3)
    mirrored = (augmented(images, flip=True) != images).flatten(1).any(dim=1)
    assert 450 < int(mirrored.sum()) < 550


def test_generator_alone_decides_the_bits() -> None:
    images = torch.rand(16, 3, 8, 8)
    first = augmented(images, 1, crop_padding=2, flip=True)
    torch.rand(5)
    assert torch.equal(augmented(images, 1, crop_padding=2, flip=True), first)
    assert not torch.equal(augmented(images, 2, crop_padding=2, flip=True), first)


def test_nothing_is_drawn_or_copied_with_both_off() -> None:
    images, generator = torch.rand(2, 1, 3, 3), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert augment(images, crop_padding=0, flip=False, generator=generator) is images
    assert torch.equal(generator.get_state(), before)


def test_images_given_are_left_as_they_were() -> None:
    images = torch.rand(4, 3, 6, 6)
    before = images.clone()
    augmented(images, crop_padding=2, flip=True)
    assert torch.equal(images, before)
