"""In which mode a model is, whether its parameters get gradients, and where it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; each of its layers as it was afterwards."""
    with in_mode(model, False):
        yield


@contextmanager
def in_mode(model: nn.Module, is_training: bool) -> Iterator[None]:
    """The model in training or evaluation mode; each of its layers as it was afterwards."""
    # Layer by layer: a user's model may keep some layers in evaluation mode for good.
    modes = [(layer, layer.training) for layer in model.modules()]
    model.train(is_training)
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextmanager
def parameters_frozen(model: nn.Module) -> Iterator[None]:
    """No gradients of parameters; each of them as it was afterwards."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    freeze(model)
    try:
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def freeze(model: nn.Module) -> None:
    """Have no gradients of parameters computed."""
    for parameter in model.parameters():  # scripted modules have no requires_grad_ of their own
        parameter.requires_grad_(False)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """The buffers of a model, which batch norm moves in training mode, as they were afterwards."""
    kept = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), kept, strict=True):
                buffer.copy_(old)
