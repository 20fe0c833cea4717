"""Every attack on every image that still stands, one rank's batches. Knows no communicator.

Images are shared out in batches. Everything random in a batch is seeded by the batch, the attack
and the try, so what is found is the same for any number of ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mpiadv.contract.tickets import Purpose, pass_seed, seed_for
from mpiadv.data import Source
from mpiadv.evaluation.accuracy import load_batch, numbered_batches
from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.crafting import JUDGING, Classifier, Try, craft, is_admissible

NUM_PLAIN = 5
"""The first columns of `Found.values`: the image's index among the test images, the label, and the
class seen in the natural image; then, of an image that was broken, the class seen in the image that
broke it first, and the Euclidean length of what had been added to it."""

PER_ATTACK = 3
"""Further columns for each attack: whether the image was attacked, whether it was broken, and the
attack steps taken on it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a rank is: attack `title` is at try `number` on its batch `batch` of `num_batches`."""

    batch: int
    num_batches: int
    title: str
    number: int
    num_standing: int


class Warned(NamedTuple):
    """What the authors of attack number `attack` warned of in batch number `batch`."""

    batch: int
    attack: int
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a rank found out: float64 [num_samples, NUM_PLAIN + PER_ATTACK * num_attacks].

    Rows are in the order of the choice of images. Those of other ranks' images are zero, so adding
    the values of all ranks is exact. `images` are kept adversarial ones, float32 [C, H, W], by
    their index among the test images.
    """

    values: npt.NDArray[np.float64]
    images: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    warnings: list[Warned] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Assault:
    """What is attacked, and how.

    Attributes:
        target: the classifier that is judged.
        sources: classifiers by name, for attacks crafted on another one.
        attacks: in the order in which they run.
        seed: of everything random.
        num_samples: so many images, by `choose_samples`.
        batch_size: images per batch; another size draws other random starts.
        keep_examples: whether to keep the image by which each broken one was broken first.
    """

    target: Classifier
    attacks: Sequence[AttackSpec]
    seed: int
    num_samples: int
    batch_size: int
    sources: Mapping[str, Classifier] = field(default_factory=dict)
    keep_examples: bool = False


def say_nothing(progress: Progress) -> None:
    """What a rank tells that nobody follows."""


def attack_share(
    assault: Assault,
    images: Source,
    *,
    share: tuple[int, int] = (0, 1),
    on_progress: Callable[[Progress], None] = say_nothing,
) -> Found:
    """Attack one rank's share: of (rank, size), the batches rank, rank + size, ...

    The models have to be frozen and in evaluation mode.
    """
    rank, size = share
    batches = numbered_batches(images, assault.num_samples, assault.batch_size)
    width = NUM_PLAIN + PER_ATTACK * len(assault.attacks)
    found = Found(values=np.zeros((sum(map(len, batches)), width)))
    own = range(rank, len(batches), size)
    for done, number in enumerate(own):
        pixels, labels = load_batch(images, batches[number], assault.target.model)
        battle = _Battle(assault, number, pixels, labels)
        reached = partial(Progress, batch=done, num_batches=len(own))
        for attack in range(len(assault.attacks)):
            battle.run(attack, reached, on_progress)
        rows = slice(number * assault.batch_size, (number + 1) * assault.batch_size)
        found.values[rows] = battle.values.cpu().numpy()
        found.values[rows, 0] = batches[number]
        found.images.update((int(batches[number][row]), image) for row, image in battle.kept)
        found.warnings.extend(battle.warnings)
    return found


class _Battle:
    """One batch under all attacks. `values` are its rows of `Found.values`, `warnings` of those.

    `kept` are rows with the image by which each was broken first.
    """

    def __init__(self, assault: Assault, number: int, images: Tensor, labels: Tensor) -> None:
        self._assault = assault
        self._number = number
        self._images, self._labels = images, labels
        seed = seed_for(assault.seed, Purpose.LAYERS, number)
        natural = assault.target.predictions(images, seed=seed)
        self._is_right = natural == labels
        self._fallen: dict[int, Tensor] = {}
        self._is_broken = torch.zeros_like(self._is_right)
        self.kept: list[tuple[int, npt.NDArray[np.float32]]] = []
        self.warnings: list[Warned] = []
        width = NUM_PLAIN + PER_ATTACK * len(assault.attacks)
        self.values = torch.zeros(len(labels), width, dtype=torch.float64, device=images.device)
        self.values[:, 1], self.values[:, 2] = labels.double(), natural.double()

    def run(
        self,
        number: int,
        reached: Callable[..., Progress],
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Run an attack, try after try, on the images that its chain left standing."""
        attack = self._assault.attacks[number]
        fallen = self._fallen.setdefault(attack.chain, ~self._is_right)
        first = NUM_PLAIN + PER_ATTACK * number
        attacked, broken, steps = (self.values[:, first + column] for column in range(PER_ATTACK))
        attacked[~fallen] = 1
        for one in range(attack.num_restarts):
            standing = (~fallen).nonzero().squeeze(1)
            if len(standing) == 0:
                break
            on_progress(reached(title=attack.title, number=one, num_standing=len(standing)))
            steps[standing] += attack.num_steps
            lost = standing[self._breaks(number, one, standing)]
            fallen[lost] = True
            broken[lost] = 1

    def _breaks(self, number: int, one: int, standing: Tensor) -> Tensor:
        """Which of the standing images one try breaks: bool [M]."""
        assault, attack = self._assault, self._assault.attacks[number]
        given = Try(
            attack=attack,
            number=one,
            images=self._images,
            labels=self._labels,
            standing=standing,
            seed=seed_for(
                assault.seed, Purpose.EVALUATION, self._number, attack.seed_key, one
            ),
            warn=lambda text: self.warnings.append(
                Warned(batch=self._number, attack=number, text=text)
            ),
        )  # fmt: skip
        crafter = assault.sources[attack.source] if attack.source else assault.target
        adversarial = craft(crafter, given)
        judging = pass_seed(given.seed, JUDGING[1])
        predictions = assault.target.predictions(adversarial, seed=judging)
        is_broken = (predictions != self._labels[standing]) & is_admissible(
            attack, self._images[standing], adversarial
        )
        is_first = is_broken & ~self._is_broken[standing]
        self._note(standing[is_first], predictions[is_first], adversarial[is_first])
        return is_broken

    def _note(self, rows: Tensor, predictions: Tensor, images: Tensor) -> None:
        """Take down by which images rows were broken first."""
        self._is_broken[rows] = True
        self.values[rows, NUM_PLAIN - 2] = predictions.double()
        changes = (images - self._images[rows]).flatten(1).double().norm(dim=1)
        self.values[rows, NUM_PLAIN - 1] = changes
        if self._assault.keep_examples:
            self.kept.extend(zip(rows.tolist(), images.cpu().numpy(), strict=True))
