"""One try of one attack on one batch. Knows no other attack and no other rank."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpiadv.attacks import NORMS, Attack, Climb, Stand, forward
from mpiadv.attacks.attack import do_nothing
from mpiadv.attacks.auto_attack import COMPONENTS, run_component
from mpiadv.attacks.spatial import place, placements
from mpiadv.contract.tickets import pass_seed
from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.models.random_streams import torch_streams_kept
from mpiadv.settings import Precision

RELATIVE_TOLERANCE = 1e-5
PIXEL_TOLERANCE = 2e-7
"""How far rounding may carry an image out of the ball: in units of epsilon, and each pixel."""


MOST_ON_CPU = 128
"""Images that pass through a network together on a CPU: of more its caches hold too little."""

JUDGING = 0, 1
"""Numbers of the forward passes that judge natural and adversarial images; the attack's follow."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model in evaluation mode, its parameters frozen, and the precision it computes in."""

    model: nn.Module
    precision: Precision

    def logits(self, images: Tensor, *, seed: int) -> Tensor:
        """Logits float32 [N, K] of images float32 [N, C, H, W] in [0, 1].

        `seed` is of what the model draws at random.
        """
        pieces = images.split(most_at_once(images.device, len(images)))
        logits = [
            forward(self.model, piece, precision=self.precision, seed=pass_seed(seed, number))
            for number, piece in enumerate(pieces)
        ]
        return torch.cat(logits)

    @torch.no_grad()
    def predictions(self, images: Tensor, *, seed: int) -> Tensor:
        """Classes int64 [N]; -1 where a logit is not a number, which is never right."""
        logits = self.logits(images, seed=seed)
        return logits.argmax(dim=1).masked_fill(logits.isnan().any(dim=1), -1)


@dataclass(frozen=True, kw_only=True)
class Try:
    """What one try of an attack is given.

    Attributes:
        attack: what to do.
        number: which of the attack's tries it is.
        images: float32 [N, C, H, W] in [0, 1], the whole batch.
        labels: int64 [N].
        standing: int64 [M], indices of the images to attack.
        seed: of everything random in it.
        warn: told what the attack's authors warn of.
    """

    attack: AttackSpec
    number: int
    images: Tensor
    labels: Tensor
    standing: Tensor
    seed: int
    warn: Callable[[str], None]


def craft(classifier: Classifier, given: Try) -> Tensor:
    """The images of `given.standing` after the attack: float32 [M, C, H, W] in [0, 1]."""
    return _CRAFTERS.get(given.attack.kind, _climb)(classifier, given)


def is_admissible(attack: AttackSpec, natural: Tensor, adversarial: Tensor) -> Tensor:
    """Which images lie in the box and in the attack's ball: bool [N]. Others prove nothing."""
    delta = (adversarial - natural).flatten(1)
    inside = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)
    if attack.kind == "grid":
        return inside
    order = NORMS[attack.norm].order
    length: Tensor = torch.linalg.vector_norm(delta, ord=order, dim=1)
    rounding: float = PIXEL_TOLERANCE * delta.shape[1] ** (1 / order)
    return inside & (length <= attack.epsilon * (1 + RELATIVE_TOLERANCE) + rounding)


def climbed(
    classifier: Classifier,
    attack: Attack,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    chosen: Tensor | None = None,
    between_steps: Callable[[], None] = do_nothing,
) -> Tensor:
    """Images float32 [N, C, H, W] of labels int64 [N] after a gradient attack.

    With `chosen`, int64 [M], only those of the batch. `between_steps` is called after each step.
    """
    # Drawn for the whole batch: where an image starts does not depend on the fate of others.
    start = attack.start(images, torch.Generator(images.device).manual_seed(seed))
    if chosen is not None:
        images, labels, start = images[chosen], labels[chosen], start[chosen]
    found, at_once = [], most_at_once(images.device, len(images))
    pieces = (given.split(at_once) for given in (images, labels, start))
    for number, (natural, truth, begin) in enumerate(zip(*pieces, strict=True)):
        climb = Climb(
            model=classifier.model,
            precision=classifier.precision,
            loss=attack.loss,
            labels=truth,
            natural=natural,
            natural_seed=_look_seed(seed, JUDGING[0], number),
        )
        looks = itertools.count(len(JUDGING))
        look = climb.looking(_look_seed(seed, each, number) for each in looks)
        found.append(attack.run(look, natural, Stand(begin), after_step=between_steps))
    return torch.cat(found)


def most_at_once(device: torch.device, num_images: int) -> int:
    """Of so many images, those that pass through a network together; at least 1."""
    return max(1, min(num_images, MOST_ON_CPU) if device.type == "cpu" else num_images)


def _look_seed(seed: int, look: int, piece: int) -> int:
    """Of what a model draws in one look at one piece, as `Classifier.logits` would seed it."""
    return pass_seed(pass_seed(seed, look), piece)


def _climb(classifier: Classifier, given: Try) -> Tensor:
    return climbed(
        classifier, given.attack.attack, given.images, given.labels,
        seed=given.seed, chosen=given.standing,
    )  # fmt: skip


def _auto_attack(classifier: Classifier, given: Try) -> Tensor:
    numbers = itertools.count(len(JUDGING))

    def logits(images: Tensor) -> Tensor:
        # The attack draws from the same streams: what the model draws must not be its next numbers.
        with torch_streams_kept(images.device):
            return classifier.logits(images, seed=pass_seed(given.seed, next(numbers)))

    return run_component(
        given.attack.kind,
        logits,
        given.images[given.standing],
        given.labels[given.standing],
        norm=given.attack.norm,
        epsilon=given.attack.epsilon,
        seed=given.seed,
        warn=given.warn,
    )


def _place(classifier: Classifier, given: Try) -> Tensor:
    attack = given.attack
    grid = placements(
        max_degrees=attack.degrees,
        num_angles=attack.angles,
        max_pixels=attack.pixels,
        num_shifts=attack.shifts,
    )
    return place(given.images[given.standing], grid[given.number])


_CRAFTERS: Mapping[str, Callable[[Classifier, Try], Tensor]] = {
    **dict.fromkeys(COMPONENTS, _auto_attack),
    "grid": _place,
}
"""Of the kinds that climb no slope."""
