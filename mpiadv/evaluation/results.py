"""From what all ranks found to figures with their uncertainty. Knows no model and no file."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.survivors import NUM_PLAIN, PER_ATTACK

CONFIDENCE_Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """So many of so many images, and what that says of images not seen."""

    count: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of Wilson 1927, in percent."""
        n, z = self.total, CONFIDENCE_Z
        p = self.count / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # Rounding must not push the ends past what was seen, or past 0 and 100.
        low = max(0.0, min(centre - half, p))
        return 100 * low, 100 * min(1.0, max(centre + half, p))


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What all ranks found together: `values` as in `Found.values`, without a zero row."""

    attacks: tuple[AttackSpec, ...]
    values: npt.NDArray[np.float64]

    @property
    def num_samples(self) -> int:
        return len(self.values)

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Which of the test images these are: int64 [num_samples]."""
        return self.values[:, 0].astype(np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Int64 [num_samples]."""
        return self.values[:, 1].astype(np.int64)

    @property
    def natural_predictions(self) -> npt.NDArray[np.int64]:
        """The classes seen in the natural images: int64 [num_samples], -1 for none."""
        return self.values[:, 2].astype(np.int64)

    @property
    def adversarial_predictions(self) -> npt.NDArray[np.int64]:
        """The classes seen in the images that broke these first: int64 [num_samples]."""
        return self.values[:, 3].astype(np.int64)

    @property
    def changes(self) -> npt.NDArray[np.float64]:
        """The Euclidean length of what those images add: float64 [num_samples]."""
        return self.values[:, 4]

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """Which natural images are classified correctly: bool [num_samples]."""
        return np.equal(self.labels, self.natural_predictions)

    def attacked(self, attack: int) -> npt.NDArray[np.bool_]:
        """Which images an attack was run on: bool [num_samples]."""
        return self._column(attack, 0) > 0

    def broken(self, attack: int) -> npt.NDArray[np.bool_]:
        """Which images an attack broke: bool [num_samples]."""
        return self._column(attack, 1) > 0

    @property
    def first_breaker(self) -> npt.NDArray[np.int64]:
        """The first attack that broke an image: int64 [num_samples], -1 for none."""
        breaker = np.full(self.num_samples, -1, np.int64)
        for attack in reversed(range(len(self.attacks))):
            breaker[self.broken(attack)] = attack
        return breaker

    @property
    def broken_rows(self) -> npt.NDArray[np.int64]:
        """Which images any attack broke: int64, ascending."""
        return np.flatnonzero(self.first_breaker >= 0)

    @property
    def natural(self) -> Share:
        return self._share(self.is_right)

    @property
    def worst_case(self) -> Share:
        """Images that are right, and that no attack at all has broken."""
        return self._share(self.is_right & (self.first_breaker < 0))

    def this_alone(self, attack: int) -> Share | None:
        """Images that withstand one attack; None where it was not run on all that are right."""
        if not np.array_equal(self.attacked(attack), self.is_right):
            return None
        return self._share(self.is_right & ~self.broken(attack))

    def all_so_far(self, attack: int) -> Share:
        """Images that are right, and that neither this attack nor any before it has broken."""
        fallen = [self.broken(number) for number in range(attack + 1)]
        return self._share(self.is_right & ~np.logical_or.reduce(fallen))

    def sample_steps(self, attack: int) -> int:
        """Attack steps taken, summed over images."""
        return int(self._column(attack, 2).sum())

    def saved_sample_steps(self, attack: int) -> int:
        """Attack steps not taken because the image was broken, or wrong, already."""
        spec = self.attacks[attack]
        most = self.num_samples * spec.num_steps * spec.num_restarts
        return most - self.sample_steps(attack)

    def _column(self, attack: int, column: int) -> npt.NDArray[np.float64]:
        return self.values[:, NUM_PLAIN + PER_ATTACK * attack + column]

    def _share(self, chosen: npt.NDArray[np.bool_]) -> Share:
        return Share(count=int(chosen.sum()), total=self.num_samples)


def sample_steps_text(findings: Findings) -> str:
    """How much work was done, and how much was saved, in one line."""
    numbers = range(len(findings.attacks))
    done = sum(map(findings.sample_steps, numbers))
    saved = sum(map(findings.saved_sample_steps, numbers))
    share = 100 * saved / max(1, done + saved)
    return f"{done:,} sample-steps; attacking survivors only saved {saved:,} ({share:.1f} %)"
