"""What a sample of a user's own data set may be, brought to one form. Knows no data set.

An image is a float tensor in [0, 1] or a uint8 tensor, [C, H, W], or a PIL image; a label is a
whole number.
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpiadv.data.checks import require_pixels
from mpiadv.process.errors import UserError, origin_of, user_code


def read_sample(dataset: Any, index: int, place: str) -> tuple[Tensor, int]:
    """Sample `index` as image uint8 or float32 [C, H, W] and label.

    Raises:
        UserError: the data set fails at it, or gives something else.
    """
    here = f"{place}, index {index}"
    with user_code(here):
        sample = dataset[index]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        length = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
        raise UserError(
            f"{here}: sample is a {type(sample).__name__}{length}, expected (image, label)"
        )
    image = _read_image(sample[0], here)
    if image.is_floating_point():
        require_pixels(image.unsqueeze(0), place, first_index=index)
    return image, _read_label(sample[1], here)


def is_same(sample: tuple[Tensor, int], other: tuple[Tensor, int]) -> bool:
    """Whether two samples have the same bits."""
    image, another = sample[0], other[0]
    return sample[1] == other[1] and image.dtype == another.dtype and torch.equal(image, another)


def read_pair(images: Any, labels: Any, place: str) -> tuple[Tensor, Tensor]:
    """Images uint8 or float32 [N, C, H, W] and labels int64 [N] of a user's pair of arrays.

    Raises:
        UserError: they are of another type or shape, or pixels are outside [0, 1].
    """
    images, labels = _as_tensor(images, place), _as_tensor(labels, place)
    if images.ndim != 4 or not images.numel() or not _is_image_type(images):
        advice = ": give images[:, None]" if images.ndim == 3 and images.numel() else ""
        raise UserError(
            f"{place}: images are {tensor_text(images)}, expected uint8 or float [N, C, H, W] "
            f"with at least one image{advice}"
        )
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or not _is_whole(labels):
        raise UserError(
            f"{place}: labels are {tensor_text(labels)}, expected one whole number per image: "
            f"an integer tensor [{len(images)}]{_advice_on(labels)}"
        )
    pixels = _as_stored(images)
    if pixels.is_floating_point():
        require_pixels(pixels, place)
    return pixels, labels.detach().to("cpu", torch.int64)


def tensor_text(tensor: object) -> str:
    """A tensor's type and shape, as `uint8 [1, 28, 28]`; the type of anything else."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def _as_tensor(values: Any, place: str) -> Any:
    """An array of numpy as a tensor; anything else as it is."""
    if not isinstance(values, np.ndarray):
        return values
    try:
        return torch.from_numpy(np.array(values, order="C"))
    except TypeError as error:
        raise UserError(
            f"{place}: holds {values.dtype} {list(values.shape)}, expected tensors: {error}"
        ) from error


def _advice_on(labels: Any) -> str:
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        return ""
    return ": give labels[:, 0]" if labels.shape[1] == 1 else ": give labels.argmax(1)"


def _read_image(image: Any, here: str) -> Tensor:
    from PIL import Image

    if isinstance(image, Image.Image):
        return _read_picture(image, here)
    is_tensor = isinstance(image, Tensor) and image.ndim == 3 and image.numel() > 0
    if not is_tensor or not _is_image_type(image):
        raise UserError(
            f"{here}: image is {tensor_text(image)}, expected a uint8 or float tensor [C, H, W] or "
            "a PIL image"
        )
    return _as_stored(image)


def _read_picture(picture: Any, here: str) -> Tensor:
    from torchvision.transforms import functional

    modes = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
    if picture.mode not in modes:
        raise UserError(
            f"{here}: PIL image has mode {picture.mode!r}, expected one of {', '.join(modes)}: "
            f"convert it, or give a tensor"
        )
    try:
        pixels: Tensor = functional.pil_to_tensor(picture.convert(modes[picture.mode]))
    except Exception as error:
        # A picture that was opened lazily is decoded, and found damaged, only here.
        raise UserError(f"{here}: {origin_of(error)}") from error
    return pixels


def _read_label(label: Any, here: str) -> int:
    try:
        return operator.index(label)
    except TypeError:
        raise UserError(f"{here}: label is {label!r}, expected a whole number") from None


def _as_stored(images: Tensor) -> Tensor:
    stored = images.detach().cpu()
    return stored.to(torch.float32) if stored.is_floating_point() else stored


def _is_image_type(images: Tensor) -> bool:
    return images.dtype == torch.uint8 or images.is_floating_point()


def _is_whole(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
