"""An attack as parts: start, loss, step, projection, stop. Knows no model: it is given a look.

Without parts of its own it is projected gradient descent: Madry et al. 2018, "Towards Deep Learning
Models Resistant to Adversarial Attacks", section 2.1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mpiadv.attacks.climb import Look, Slope
from mpiadv.attacks.l1 import drop_blocked
from mpiadv.attacks.losses import AttackLoss
from mpiadv.attacks.norms import NORMS, to_box

GAUSSIAN_SCALE = 0.001
"""Standard deviation of the start that TRADES and MART take, in pixels of [0, 1]."""

STOPPED = 2**31 - 1
"""Noted of an image that stays where it is."""

_ROUNDING = 1e-6


class Stand(NamedTuple):
    """Where an attack stands between two steps, and all that those to come need to know.

    `images` float32 [N, C, H, W]; `notes` int64 [N], of attacks that keep any. Those that stop
    images note in how many looks each was misclassified, or `STOPPED`.
    """

    images: Tensor
    notes: Tensor | None = None


def do_nothing() -> None:
    """What a caller who waits for nothing wants done meanwhile."""


def steepest(attack: "Attack", gradient: Tensor, images: Tensor) -> Tensor:
    """What to add to `images`: the step of the attack's size that climbs most in its norm."""
    if attack.norm == "l1":
        gradient = drop_blocked(gradient, images)
    return NORMS[attack.norm].ascend(gradient, attack.step_size)


def anywhere(attack: "Attack", delta: Tensor) -> Tensor:
    """The perturbations themselves, in the ball or not."""
    return delta


def nearest(attack: "Attack", delta: Tensor) -> Tensor:
    """The perturbations in the attack's ball that are nearest to `delta`."""
    return NORMS[attack.norm].project(delta, attack.epsilon)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A start, then `num_steps` steps uphill, each followed by projection and box.

    Images, gradients and perturbations are float32 [N, C, H, W], pixels in [0, 1].

    Attributes:
        norm: name of the norm, one of `NORMS`.
        epsilon: radius of the ball, in pixels.
        num_steps: at most so many for each image.
        step_size: in pixels.
        start_at: from attack, natural images and generator to where the attack begins, kept in the
            box; None: where the configuration says.
        loss: what is climbed; None: what the configuration says.
        step: from attack, gradient and images to what is added to them.
        projection: from attack and perturbations to those that are allowed.
        stop: from the slope, and in how many looks so far, this one included, each image was
            misclassified (int64 [N], beyond `STOPPED` once it is stopped), to which images stay
            from now on as they are (bool [N]).
    """

    norm: str
    epsilon: float
    num_steps: int
    step_size: float
    start_at: "Start | None" = None
    loss: AttackLoss | None = None
    step: "Callable[[Attack, Tensor, Tensor], Tensor]" = steepest
    projection: "Callable[[Attack, Tensor], Tensor]" = nearest
    stop: Callable[[Slope, Tensor], Tensor] | None = None

    @property
    def keeps_notes(self) -> bool:
        """Whether it stands on notes, too."""
        return self.stop is not None

    @property
    def misfit(self) -> str:
        """How the steps do not fit the ball, so that the attack finds too little; or empty.

        A step size in pixels is made for one norm and one radius: 40 steps of 0.01 cross an L-inf
        ball of 0.3, and hardly move in an L2 ball of 1. So none is a default.
        """
        size, ball = self.step_size, f"({self.norm} {self.epsilon:.4g})"
        if 0 < self.num_steps * size < self.epsilon * (1 - _ROUNDING):
            return (
                f"{self.num_steps} steps of {size:.4g} do not reach the border of the ball {ball}"
            )
        if self.num_steps > 1 and size > 2 * self.epsilon * (1 + _ROUNDING) > 0:
            return f"steps of {size:.4g} leap over the whole ball {ball}"
        return ""

    @torch.no_grad()
    def start(self, natural: Tensor, generator: torch.Generator) -> Tensor:
        """Where the attack begins; at the natural images it is `natural` itself, not a copy.

        `generator` lives on the device of `natural`.
        """
        start = (self.start_at or at_natural)(self, natural, generator)
        return start if start is natural else to_box(start)

    def run(
        self,
        look: Look,
        natural: Tensor,
        stand: Stand,
        *,
        first: int = 0,
        after_step: Callable[[], None] = do_nothing,
    ) -> Tensor:
        """The adversarial images after all steps from `first` on; calls `after_step` after each."""
        for stepped in self.steps(look, natural, stand, first=first):
            stand = stepped
            after_step()
        return stand.images

    def steps(
        self,
        look: Look,
        natural: Tensor,
        stand: Stand,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[Stand]:
        """Yield where the attack stands after each of the steps `first` to `last - 1`.

        `look` is called once per step, when that step is asked for, so that the caller may change
        the model in between. Each step yields new tensors. `last` defaults to `num_steps`.

        Raises:
            ValueError: not 0 <= first <= last <= num_steps.
        """
        last = self.num_steps if last is None else last
        if not 0 <= first <= last <= self.num_steps:
            raise ValueError(f"steps {first} to {last} of an attack of {self.num_steps} steps")
        return self._take_steps(look, natural, stand, last - first)

    def _take_steps(self, look: Look, natural: Tensor, stand: Stand, count: int) -> Iterator[Stand]:
        # No `with torch.no_grad()` here: a generator would leave it on for its caller.
        for _ in range(count):
            if not len(natural):  # a model need not take batches of no images
                yield stand
                continue
            slope = look(stand.images)
            moved = self._step(slope.gradient, natural, stand.images)
            stand = Stand(moved) if self.stop is None else self._stopped(slope, stand, moved)
            yield stand

    def _stopped(self, slope: Slope, stand: Stand, moved: Tensor) -> Stand:
        """Where the attack stands after a step to `moved`, which some images do not take."""
        assert self.stop is not None
        is_missed = slope.logits.argmax(dim=1) != slope.labels
        misses = is_missed.long() if stand.notes is None else stand.notes + is_missed
        is_stopped = (misses >= STOPPED) | self.stop(slope, misses)
        return Stand(
            torch.where(is_stopped[:, None, None, None], stand.images, moved),
            misses.masked_fill(is_stopped, STOPPED),
        )

    @torch.no_grad()
    def _step(self, gradient: Tensor, natural: Tensor, adversarial: Tensor) -> Tensor:
        moved = adversarial + self.step(self, gradient, adversarial)
        return to_box(natural + self.projection(self, moved - natural))


Start = Callable[[Attack, Tensor, torch.Generator], Tensor]
"""From natural images to where an attack on them begins."""


def at_natural(attack: Attack, natural: Tensor, generator: torch.Generator) -> Tensor:
    """The images themselves."""
    return natural


def uniformly(attack: Attack, natural: Tensor, generator: torch.Generator) -> Tensor:
    """Anywhere in the ball, no place likelier than another."""
    return natural + NORMS[attack.norm].random(natural, attack.epsilon, generator)


def gaussian(attack: Attack, natural: Tensor, generator: torch.Generator) -> Tensor:
    """A normal variable of standard deviation 0.001 away, but in the ball."""
    noise = torch.randn(natural.shape, generator=generator, device=natural.device)
    return natural + nearest(attack, GAUSSIAN_SCALE * noise)


STARTS: Mapping[str, Start] = {
    "uniform": uniformly,
    "natural": at_natural,
    "gaussian": gaussian,
}
