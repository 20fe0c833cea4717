"""Notices catastrophic overfitting: training images that suddenly no longer withstand PGD.

Wong et al. 2020, "Fast is better than free: Revisiting adversarial training", section 5.1. They
compare the first training batches of two epochs; here it is the same training images each time, so
that a fall is of the model, and compared with the highest accuracy so far, so that a fall in
several parts is one, too.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mpiadv.session.kept_weights import KeptWeights
from mpiadv.settings import GuardConfig
from mpiadv.storage.run_folder import RAW

CURES = "use attack.name=nfgsm, objective.name=grad_align or more attack steps"
"""What helps against it."""

FALLEN = "training images do not withstand PGD since an earlier measurement"
"""Of a run that goes on after a fall that it was only told of."""


@dataclass(kw_only=True)
class Guard:
    """What has been measured so far; part of the checkpoint.

    `highest`: accuracy, in percent. `good`: the weights of the last measurement before a fall.
    """

    config: GuardConfig
    highest: float = 0.0
    has_fallen: bool = False
    good: KeptWeights = field(default_factory=KeptWeights)

    def judge(self, step: int, model: nn.Module, accuracy: float, measure: str) -> str:
        """What to say of the accuracy on training images under PGD, in percent; often nothing.

        `measure` says how it was measured: what was measured otherwise does not compare.
        """
        if self.good.forget_other(measure):
            self.highest, self.has_fallen = 0.0, False
        before, had_fallen = self.highest, self.has_fallen
        self.highest = max(before, accuracy)
        self.has_fallen = before - accuracy > 100 * self.config.largest_fall
        if self.has_fallen:
            fell = f"from {before:.1f} to {accuracy:.1f} %"
            return "" if had_fallen else f"{self._told} fell {fell}: catastrophic overfitting"
        self.good.keep(step, RAW, model, accuracy, measure)
        return ""

    @property
    def must_stop(self) -> bool:
        return self.has_fallen and self.config.action == "stop"

    @property
    def _told(self) -> str:
        return f"accuracy of training images under PGD-{self.config.num_steps}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "highest": self.highest,
            "has_fallen": self.has_fallen,
            "good": self.good.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.highest, self.has_fallen = state["highest"], state["has_fallen"]
        self.good.load_state_dict(state["good"])
