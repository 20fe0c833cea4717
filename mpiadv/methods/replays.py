"""Steps that train several times on each batch, and attack it meanwhile: FREE and DEAT.

Attackers decode and augment for them; the gradient of each pass serves weights and images alike.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mpiadv.attacks import Attack, make_attack
from mpiadv.contract.tickets import AttackSettings
from mpiadv.methods.objective import Batch
from mpiadv.methods.training_step import Learned, OrdinaryStep, Parts


class RestartedReplays(OrdinaryStep):
    """DEAT: each batch `num_steps` times, its perturbation beginning where the batch was crafted.

    Wang et al. 2021, "Dynamic Efficient Adversarial Training Guided by Gradient Magnitude",
    algorithm 1. The perturbation moves by the gradient that the weights get, at the weights before
    their update, then the weights do. The learning rate changes once a batch, and so do averages.
    """

    attacks = True
    is_kept: ClassVar[bool] = False
    """Whether the perturbation of a batch goes on with the next one."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._delta = torch.zeros(0)
        self._to_come = 0

    def replays(self, settings: AttackSettings) -> int:
        return max(1, settings.num_steps)

    def gradient(self, ticket: int, batch: Batch, settings: AttackSettings) -> Learned:
        assert batch.natural is not None, "batches of steps that attack come with natural images"
        clean, attack = self._parts.num_clean, make_attack(self._parts.attack, settings)
        natural = batch.natural[clean:]
        if not self._to_come:
            self._begin(batch.images[clean:] - natural, self.replays(settings))
        attacked = (natural + self._delta).clamp(0, 1)
        images = torch.cat([batch.natural[:clean], attacked]).requires_grad_()
        replay = self.replays(settings) - self._to_come
        learned = self._gradient(replace(batch, images=images), self._seed(ticket, replay))
        assert learned.slope is not None
        self._delta = _moved(attack, learned.slope[clean:], attacked, self._delta)
        return learned

    def apply(self) -> float:
        rate = self._update()
        self._to_come -= 1
        if not self._to_come:
            self._end()
        return rate

    def _begin(self, start: Tensor, replays: int) -> None:
        if not (self.is_kept and self._delta.shape == start.shape):
            self._delta = start
        self._delta = self._delta.to(start.device)
        self._to_come = replays


class KeptReplays(RestartedReplays):
    """FREE: each batch `num_steps` times, its perturbation going on with the next batch.

    Shafahi et al. 2019, "Adversarial Training for Free!", algorithm 1: it is kept by the place in
    the batch, also from one epoch to the next.
    """

    is_kept = True

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "delta": self._delta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._delta = state["delta"].clone()


@torch.no_grad()
def _moved(attack: Attack, slope: Tensor, attacked: Tensor, delta: Tensor) -> Tensor:
    """The perturbation after a step uphill, in the ball; the box is kept where it is added."""
    return attack.projection(attack, delta + attack.step(attack, slope, attacked))
