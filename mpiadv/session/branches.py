"""Through which of two batch norms a model is judged."""

from torch import nn

from mpiadv.models.mixture import NaturalBranch
from mpiadv.settings import Config
from mpiadv.storage.run_folder import ATTACKED, NATURAL

_BRANCHES = {NATURAL: "natural", ATTACKED: "adversarial"}
"""Those of evaluations that are not through the run's own."""


def judged(config: Config, model: nn.Module, weights: str) -> nn.Module:
    """The model as it is evaluated under that name: through the run's branch, or the named one."""
    return NaturalBranch(model) if _branch_of(config, weights) == "natural" else model


def branch_text(config: Config, weights: str) -> str:
    """What a line of such an evaluation begins with, where there is more than one branch."""
    return f"{_branch_of(config, weights)} branch, " * config.model.mixture_batch_norm


def _branch_of(config: Config, weights: str) -> str:
    return _BRANCHES.get(weights, config.evaluation.branch)
