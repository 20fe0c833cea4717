"""Random rotations and shifts, of which the worst stays: an attack that needs no gradient.

Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness", section 3.1, worst of k.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mpiadv.attacks.attack import Stand
from mpiadv.attacks.climb import ClimbView
from mpiadv.attacks.spatial import place_each
from mpiadv.contract.tickets import Purpose, seed_for

_MILLIONTHS = 1e6
_MOST_LOSS = 1e9


@dataclass(frozen=True, kw_only=True)
class PlacingAttack:
    """In each step a placement of the natural image, drawn anew; it stays if its loss is higher.

    The loss is cross-entropy, noted in millionths: placements of several steps, and so of several
    versions of the parameters, are compared by what the loss of each was when it was tried.

    Attributes:
        num_steps: placements that are tried for each image.
        degrees: largest angle, either way; `pixels`: largest shift in each direction.
        seed: of all placements.
    """

    num_steps: int
    degrees: float
    pixels: float
    seed: int
    keeps_notes = True
    loss = None

    def start(self, natural: Tensor, generator: torch.Generator) -> Tensor:
        """The natural images, float32 [N, C, H, W], which the first placement replaces."""
        return natural

    def steps(
        self,
        look: ClimbView,
        natural: Tensor,
        stand: Stand,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[Stand]:
        """As `Attack.steps`."""
        for step in range(first, self.num_steps if last is None else last):
            if len(natural):
                stand = self._tried(look, natural, stand, step)
            yield stand

    @torch.no_grad()
    def _tried(self, look: ClimbView, natural: Tensor, stand: Stand, step: int) -> Stand:
        generator = torch.Generator().manual_seed(seed_for(self.seed, Purpose.THREATS, step))
        unit = torch.rand(3, len(natural), generator=generator, dtype=torch.float64) * 2 - 1
        turned, right, down = unit[0] * self.degrees, unit[1] * self.pixels, unit[2] * self.pixels
        placed = place_each(natural, degrees=turned, right=right, down=down)
        # NaN is the highest loss there is: a broken model has to reach the training step.
        losses = look.losses(placed).nan_to_num(nan=_MOST_LOSS).clamp(max=_MOST_LOSS)
        losses = (losses.double() * _MILLIONTHS).long()
        if stand.notes is None or step == 0:
            return Stand(placed, losses)
        is_worse = losses > stand.notes
        return Stand(
            torch.where(is_worse[:, None, None, None], placed, stand.images),
            torch.where(is_worse, losses, stand.notes),
        )
