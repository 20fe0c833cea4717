"""Evaluations as papers have them: which attacks, on what. Knows no model and no images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mpiadv.settings.pixels import FITTING_STEPS
from mpiadv.settings.registry import find_registered


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation as a paper has it.

    Attributes:
        attacks: words for `read_attacks`.
        is_each_alone: whether each attack starts from all images, for figures like the paper's
            columns.
        step_size: of PGD, in pixels of [0, 1], in the paper's own `ball` and no other; None, as in
            any other ball: the ball's own.
        ball: norm and radius.
    """

    attacks: tuple[str, ...]
    is_each_alone: bool = False
    step_size: float | None = None
    ball: tuple[str, float] | None = None

    def words(self, norm: str, epsilon: float | None) -> tuple[str, ...]:
        """Its attacks, for images in the ball of `norm` and `epsilon`."""
        if self.step_size is None or not self.is_made_for(norm, epsilon):
            return self.attacks
        return tuple(f"{word},step_size={self.step_size!r}" for word in self.attacks)

    def is_made_for(self, norm: str, epsilon: float | None) -> bool:
        """Whether it was made for this ball; true where it says nothing of one."""
        if self.ball is None or epsilon is None:
            return True
        return norm == self.ball[0] and math.isclose(epsilon, self.ball[1], rel_tol=1e-6)

    @property
    def note_elsewhere(self) -> str:
        """What becomes of its step size in any other ball."""
        assert self.ball is not None, "asked of a protocol for any ball"
        return (
            f"its steps of {self.step_size:g} were made for {self.ball[0]} {self.ball[1]:g}: here "
            f"they are {FITTING_STEPS}"
        )


PROTOCOLS: Mapping[str, Protocol] = {
    # Madry et al. 2018, MNIST: table 1 and the challenge's leaderboard.
    "madry": Protocol(
        attacks=("pgd:steps=40", "pgd:steps=100,restarts=20"), step_size=0.01, ball=("linf", 0.3)
    ),
    # Wong et al. 2020, "Fast is better than free", section 5.
    "fast": Protocol(attacks=("pgd:steps=50,restarts=10",)),
    # Zhang et al. 2019, "Theoretically Principled Trade-off", section 5.
    "trades": Protocol(attacks=("pgd:steps=20",)),
    # Wang et al., DEAT: table 1, with a column for each attack.
    "deat": Protocol(attacks=("pgd:steps=100", "cw:steps=20", "autoattack"), is_each_alone=True),
    # Croce and Hein 2020: the standard version.
    "autoattack": Protocol(attacks=("autoattack",)),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name; raises UserError where there is none."""
    return find_registered("protocol", name, PROTOCOLS)
