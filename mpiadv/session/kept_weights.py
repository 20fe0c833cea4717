"""Weights of one moment of a run, kept while it trains on. Part of the checkpoint."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


def state_of_model(model: nn.Module) -> dict[str, Any]:
    """All that a model is: its state dict, and buffers that belong to none."""
    saved = model.state_dict()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name not in saved}
    return {"model": saved, "unsaved_buffers": buffers}


class ReorderedError(ValueError):
    """A model has the parameters of a state, in another order."""


def put_state(state: dict[str, Any], model: nn.Module) -> None:
    """Make a model what `state_of_model` says; any exception says that it is no state of it."""
    model.load_state_dict(state["model"])
    if [*state["model"]] != [*model.state_dict()]:
        # Names fit, and yet layers that come in another order are another function.
        raise ReorderedError("its layers come in another order: a set has none")
    with torch.no_grad():
        for name, kept in state["unsaved_buffers"].items():
            model.get_buffer(name).copy_(kept)


@dataclass(kw_only=True)
class KeptWeights:
    """Weights, and how they were measured; nothing is kept as long as `state` is empty.

    Attributes:
        step: training steps done.
        weights: their name, as in the run's folder.
        accuracy: under attack, in percent.
        measure: of which images and under which attack.
        state: of the model, on the CPU, as `state_of_model`.
    """

    step: int = -1
    weights: str = ""
    accuracy: float = -1.0
    measure: str = ""
    state: dict[str, Any] = field(default_factory=dict)

    def keep(
        self, step: int, weights: str, model: nn.Module, accuracy: float, measure: str
    ) -> None:
        """Keep what `model`, of the weights of that name, is now."""
        state = state_of_model(model)
        self.state = {key: _on_cpu(values) for key, values in state.items()}
        self.step, self.weights = step, weights
        self.accuracy, self.measure = accuracy, measure

    def forget_other(self, measure: str) -> bool:
        """Keep nothing that was measured otherwise, as it does not compare; whether there was."""
        if not self.state or self.measure == measure:
            return False
        vars(self).update(vars(KeptWeights()))
        return True

    def put_into(self, model: nn.Module) -> nn.Module:
        """A model of the same kind with these weights: it returns `model` itself."""
        put_state(self.state, model)
        return model

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({name: state[name] for name in vars(self)})


def _on_cpu(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in values.items()}
