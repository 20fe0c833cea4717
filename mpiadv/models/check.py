"""Whether a model fits the data, asked before anything starts. Knows no particular model."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpiadv.models.modes import device_of, evaluation_mode
from mpiadv.models.normalized import Normalize
from mpiadv.process.errors import UserError, user_code
from mpiadv.process.words import counted, shape_text

ImageShape = tuple[int, int, int]


def check_model(model: nn.Module, image_shape: ImageShape, num_classes: int) -> None:
    """Run two black images through the model in evaluation mode, then one; nothing in it changes.

    Raises:
        UserError: the model has no parameters, raises, or returns anything but logits
            [N, num_classes].
    """
    for num_images in (2, 1):
        given = f"model {name_of(model)}, given {images_text(num_images, image_shape)}"
        with torch.random.fork_rng(devices=[]):
            logits = outputs_of_zeros(model, image_shape, num_images=num_images)
        require_logits(logits, given, num_images, num_classes)
    if next(model.parameters(), None) is None:
        raise UserError(f"model {name_of(model)} has no parameters: there is nothing to train")


def require_plain_tensors(model: nn.Module, name: str) -> None:
    """Refuse, with a UserError, parameters and buffers whose elements cannot be set one by one."""
    for place, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise UserError(
                f"model {name!r}: {place} is never initialised, as no image reaches its layer: "
                "leave it out"
            )
        if tensor.layout is not torch.strided:
            raise UserError(
                f"model {name!r}: {place} is {tensor.layout}, expected a dense tensor "
                "(torch.strided)"
            )
        places = zip(tensor.stride(), tensor.shape, strict=True)
        if any(step == 0 and size > 1 for step, size in places):
            raise UserError(
                f"model {name!r}: elements of {place} share memory, as `expand` makes them: add "
                ".contiguous()"
            )


def outputs_of_zeros(model: nn.Module, image_shape: ImageShape, *, num_images: int) -> object:
    """What the model makes of black images in evaluation mode.

    Raises:
        UserError: it raises.
    """
    zeros = torch.zeros(num_images, *image_shape, device=device_of(model))
    place = f"model {name_of(model)}, given {images_text(num_images, image_shape)}, fails"
    with user_code(place), evaluation_mode(model), torch.no_grad():
        return model(zeros)


def require_logits(outputs: object, given: str, num_images: int, num_classes: int) -> None:
    """Refuse what is no tensor of logits [num_images, num_classes]; `given` begins the line."""
    shape = f"[{num_images}, {num_classes}]"
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"{given}, returns {type(outputs).__name__}, expected one tensor of logits {shape}: "
            "return them alone, in training too"
        )
    if tuple(outputs.shape) != (num_images, num_classes):
        raise UserError(
            f"{given}, returns a tensor of shape {list(outputs.shape)}, expected logits {shape}: "
            "one row per image, one column per class of the data set"
        )


def require_image_shape(model: str, given: ImageShape, taken: ImageShape) -> None:
    """Refuse, with a UserError, images of another shape than the model takes."""
    if tuple(given) != tuple(taken):
        raise UserError(
            f"model {model!r} takes images of {shape_text(taken)}, but the data set has images of "
            f"{shape_text(given)}: set model.name or data.name so that they match"
        )


def name_of(model: nn.Module) -> str:
    """That of the user's own class, be it normalised or not."""
    if isinstance(model, nn.Sequential) and len(model) and isinstance(model[0], Normalize):
        return name_of(model[1])
    return type(model).__name__


def images_text(num_images: int, image_shape: ImageShape) -> str:
    """`2 images of 1x28x28`."""
    return f"{counted(num_images, 'image')} of {shape_text(image_shape)}"
