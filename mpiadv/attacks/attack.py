"""Projected gradient descent as a generator. Knows no model: it takes a function for the gradient.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mpiadv.attacks.norms import NORMS, Norm, to_box
from mpiadv.attacks.steps import step_length
from mpiadv.contract.tickets import AttackSettings
from mpiadv.settings import AttackConfig

GradientFunction = Callable[[Tensor], Tensor]
"""From images float32 [N, C, H, W] to the gradient of the attacked loss in the same shape."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A start in the ball, then `num_steps` steps uphill, each followed by ball and box.

    `epsilon` and `step_size` are in pixels of [0, 1]. Images are float32 [N, C, H, W] in [0, 1].
    """

    norm: Norm
    epsilon: float
    num_steps: int
    step_size: float
    random_start: bool

    @torch.no_grad()
    def start(self, natural: Tensor, generator: torch.Generator) -> Tensor:
        """Where the attack begins; without a random start `natural` itself, not a copy.

        `generator` lives on the device of `natural`.
        """
        if not self.random_start:
            return natural
        return to_box(natural + self.norm.random(natural, self.epsilon, generator))

    def steps(
        self,
        gradient: GradientFunction,
        natural: Tensor,
        adversarial: Tensor,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[Tensor]:
        """Yield the adversarial images after each of the steps `first` to `last - 1`.

        `gradient` is called once per step, when that step is asked for, so that the caller may
        change the model in between. Each step yields new tensors. `last` defaults to `num_steps`.

        Raises:
            ValueError: not 0 <= first <= last <= num_steps.
        """
        last = self.num_steps if last is None else last
        if not 0 <= first <= last <= self.num_steps:
            raise ValueError(f"steps {first} to {last} of an attack of {self.num_steps} steps")
        return self._take_steps(gradient, natural, adversarial, last - first)

    def _take_steps(
        self, gradient: GradientFunction, natural: Tensor, adversarial: Tensor, count: int
    ) -> Iterator[Tensor]:
        # No `with torch.no_grad()` here: a generator would leave it on for its caller.
        for _ in range(count):
            adversarial = self._step(gradient(adversarial), natural, adversarial)
            yield adversarial

    @torch.no_grad()
    def _step(self, gradient: Tensor, natural: Tensor, adversarial: Tensor) -> Tensor:
        moved = adversarial + self.norm.ascend(gradient, self.step_size)
        return to_box(natural + self.norm.project(moved - natural, self.epsilon))


def pgd(config: AttackConfig, settings: AttackSettings) -> Attack:
    """PGD with the published number of steps and radius."""
    return Attack(
        norm=NORMS[config.norm],
        epsilon=settings.epsilon,
        num_steps=settings.num_steps,
        step_size=step_length(
            epsilon=settings.epsilon,
            num_steps=settings.num_steps,
            given=config.step_size,
            relative=config.relative_step_size,
        ),
        random_start=config.random_start,
    )
