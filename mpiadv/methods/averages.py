"""The moving average of the trained weights, by torch's own implementation."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mpiadv.models import freeze
from mpiadv.process.errors import user_code
from mpiadv.settings import AverageConfig


class WeightAverage:
    """An exponential moving average of a model's parameters; its buffers are the model's newest.

    After step i of n, counted from 1, with w = warmup_fraction * n and d = i - w, the average is
    `decay_i * average + (1 - decay_i) * weights`, where `decay_i = min(decay, (1 + d) / (10 + d))`,
    and 0 as long as d < 0 (Gowal et al. 2020, in the published code of Rade).
    """

    def __init__(
        self, config: AverageConfig, model: nn.Module, *, decay: float, num_steps: int
    ) -> None:
        self._trained = model
        self._decay = decay
        self._warmup_steps = config.warmup_fraction * num_steps
        with user_code("average.decay needs a copy of the model, and there is none to be had"):
            self._averaged = AveragedModel(model)
            _require_copy(model, self.model)
            freeze(self._averaged)
        self._averaged.n_averaged.fill_(1)  # the initial weights: else the first are copied

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights, of the type of the one that is trained."""
        return self._averaged.module

    def update(self) -> None:
        """Take in the weights after a training step."""
        since = int(self._averaged.n_averaged) - self._warmup_steps  # on the CPU: no wait
        decay = min(self._decay, (1 + since) / (10 + since)) if since >= 0 else 0.0
        self._averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self._averaged.update_parameters(self._trained)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, and how many were taken in."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, the trained model being in its own already.

        Raises:
            RuntimeError: it is of another model.
        """
        self._averaged.load_state_dict(state)
        with torch.no_grad():  # also those that belong to no state dict
            for ours, theirs in zip(self.model.buffers(), self._trained.buffers(), strict=True):
                ours.copy_(theirs)


def _require_copy(model: nn.Module, copy: nn.Module) -> None:
    """Refuse what a `__deepcopy__` of the user's gives that is no copy; `user_code` is around."""
    if [*copy.state_dict()] != [*model.state_dict()]:
        raise ValueError("its copy has other parameters or buffers")
    if {*map(id, model.parameters())} & {*map(id, copy.parameters())}:
        raise ValueError("its copy has the same parameters, not copies of them")


def make_average(
    config: AverageConfig, model: nn.Module, *, num_steps: int
) -> WeightAverage | None:
    """The average of a run of so many steps; None where none is wanted.

    Raises:
        UserError: the model cannot be copied.
    """
    if config.decay is None:
        return None
    return WeightAverage(config, model, decay=config.decay, num_steps=num_steps)
