"""Several threat models in plain torch; see `plain_training`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from plain_training import Plain, Seen, attack_plainly
from torch import Tensor
from torch.nn import functional

from mpiadv.contract.tickets import Purpose, seed_for

DEGREES, PIXELS = 20.0, 1.0

Crafted = tuple[Tensor, float | None]
Choose = Callable[[Seen, Sequence[Callable[[], Crafted]], int], Crafted]


def several(others: Plain, choose: Choose) -> Plain:
    """PGD in L-inf, beside it another attack, and rotations with shifts."""

    def attack(
        method: Plain, seen: Seen, ticket: int, number: int, generator: torch.Generator
    ) -> Crafted:
        candidates = [
            lambda: attack_plainly(Plain(), seen, ticket, number, generator),
            lambda: attack_plainly(others, seen, ticket, number, generator),
            lambda: (_placed(seen, ticket, number), None),
        ]
        return choose(seen, candidates, ticket)

    return Plain(attack=attack)


def _losses(seen: Seen, images: Tensor) -> Tensor:
    return functional.cross_entropy(seen.model(images), seen.labels, reduction="none").detach()


def worst(seen: Seen, candidates: Sequence[Callable[[], Crafted]], ticket: int) -> Crafted:
    images = [candidate()[0] for candidate in candidates]
    losses = torch.stack([_losses(seen, each) for each in images])
    chosen = losses.argmax(dim=0).tolist()
    return torch.stack([images[which][at] for at, which in enumerate(chosen)]), 0.0


def everything(seen: Seen, candidates: Sequence[Callable[[], Crafted]], ticket: int) -> Crafted:
    return torch.cat([candidate()[0] for candidate in candidates]), 0.0


def drawn(seen: Seen, candidates: Sequence[Callable[[], Crafted]], ticket: int) -> Crafted:
    return candidates[seed_for(0, Purpose.THREATS, ticket) % len(candidates)]()


def _placed(seen: Seen, ticket: int, number: int) -> Tensor:
    """Of so many random placements of each image the one of the highest loss."""
    of_second = 1
    seed = seed_for(seed_for(0, Purpose.THREATS, ticket), Purpose.THREATS, of_second)
    best, highest = seen.natural, torch.full((len(seen.labels),), -1.0)
    for step in range(number):
        generator = torch.Generator().manual_seed(seed_for(seed, Purpose.THREATS, step))
        unit = torch.rand(3, len(best), generator=generator, dtype=torch.float64) * 2 - 1
        placed = torch.cat(
            [
                _turned(image[None], DEGREES * turn, PIXELS * right, PIXELS * down)
                for image, (turn, right, down) in zip(seen.natural, unit.T.tolist(), strict=True)
            ]
        )
        losses = _losses(seen, placed)
        is_worse = losses > highest
        best = torch.where(is_worse[:, None, None, None], placed, best)
        highest = torch.where(is_worse, losses, highest)
    return best


def _turned(image: Tensor, degrees: float, right: float, down: float) -> Tensor:
    """A square image, turned, then shifted."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    back = torch.tensor([[cos, -sin], [sin, cos]])
    shift = torch.tensor([[2 * right / image.shape[3]], [2 * down / image.shape[2]]])
    theta = torch.cat([back, -back @ shift], dim=1)
    grid = functional.affine_grid(theta[None], list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False).clamp(0, 1)


def in_l2(
    step: Callable[[Tensor], Tensor],
    clip: Callable[[Tensor], Tensor],
    start: Callable[[Tensor, torch.Generator], Tensor],
) -> Plain:
    return replace(Plain(), epsilon=1.0, step=step, clip=clip, start=start)
