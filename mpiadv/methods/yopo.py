"""Several passes of one update, with cheap attack steps between them: YOPO."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mpiadv.attacks import Slope, Stand, make_attack
from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import Learned, OrdinaryStep

_Gradients = Sequence[Tensor | None]


class CheapStep(OrdinaryStep):
    """YOPO-m-n: m passes through the network, and n attack steps after each but the last.

    Zhang et al. 2019, "You Only Propagate Once: Accelerating Adversarial Training via Maximal
    Principle", algorithm 1. The n steps are through the first layer alone, with the gradient at its
    output kept. Where that layer is linear, as a convolution is and a normalisation before it, the
    gradient at the images is then the same in all n steps: that of the pass, which is used here,
    whatever the first layer is. The update is by the mean gradient of the m passes; the authors'
    code sums them, at a rate divided by m, and counts that of the first layer twice.
    """

    attacks = True

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        assert batch.natural is not None, "batches of steps that attack come with natural images"
        clean, passes = self._parts.num_clean, max(1, settings.num_steps)
        attack = replace(
            make_attack(self._parts.attack, settings),
            num_steps=self._parts.config.yopo_steps,
            stop=None,
        )
        images, total = batch.images, list[Tensor | None]()
        for number in range(passes):
            given = replace(batch, images=images.detach().requires_grad_())
            learned = self._gradient(given, self._seed(ticket, number))
            total = _sum(total, [parameter.grad for parameter in self.model.parameters()])
            assert learned.slope is not None
            slope = Slope(learned.slope[clean:], learned.slope, batch.labels[clean:])
            moved = attack.run(
                lambda at, slope=slope: slope,  # type: ignore[misc]
                batch.natural[clean:],
                Stand(images[clean:]),
            )
            images = torch.cat([batch.natural[:clean], moved])
        for parameter, gradient in zip(self.model.parameters(), total, strict=True):
            parameter.grad = None if gradient is None else gradient / passes
        return learned


def _sum(some: _Gradients, others: _Gradients) -> list[Tensor | None]:
    """Sums of gradients, of parameters that have any."""
    if not some:
        return list(others)
    pairs = zip(some, others, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]
