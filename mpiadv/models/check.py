"""Whether a model fits the data, asked before anything starts. Knows no particular model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpiadv.errors import UserError, origin_of
from mpiadv.models.normalized import Normalize
from mpiadv.models.shapes import shape_text


def check_model(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run two black images through the model in evaluation mode; nothing in it changes.

    Raises:
        UserError: the model has no parameters, raises, or returns anything but logits
            [2, num_classes].
    """
    name = _name_of(model)
    given = f"given 2 images of {shape_text(image_shape)}"
    logits = _logits_of_zeros(model, image_shape, f"model {name}, {given}, fails")
    if not isinstance(logits, Tensor):
        raise UserError(
            f"model {name}, {given}, returns {type(logits).__name__}, expected one tensor of "
            f"logits [2, {num_classes}]"
        )
    if tuple(logits.shape) != (2, num_classes):
        raise UserError(
            f"model {name}, {given}, returns a tensor of shape {list(logits.shape)}, expected "
            f"logits [2, {num_classes}]: one row per image, one column per class of the data set"
        )
    if next(model.parameters(), None) is None:
        raise UserError(f"model {name} has no parameters: there is nothing to train")


def _logits_of_zeros(model: nn.Module, image_shape: tuple[int, int, int], fails: str) -> object:
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    zeros = torch.zeros(2, *image_shape, device=device)
    try:
        with torch.random.fork_rng(devices=[]), _evaluation_mode(model), torch.no_grad():
            return model(zeros)
    except Exception as error:
        raise UserError(f"{fails}: {origin_of(error)}; {_expectation(model)}") from error


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Layer by layer: a user's model may keep some layers in evaluation mode for good.
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def _name_of(model: nn.Module) -> str:
    if isinstance(model, nn.Sequential) and len(model) and isinstance(model[0], Normalize):
        return _name_of(model[1])
    return type(model).__name__


def _expectation(model: nn.Module) -> str:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            return (
                f"its first convolution takes {layer.in_channels} channel(s), and the model may "
                f"be made for another image size"
            )
        if isinstance(layer, nn.Linear):
            return f"its first dense layer takes {layer.in_features} values per image"
    return "it may be made for another number of channels or another image size"
