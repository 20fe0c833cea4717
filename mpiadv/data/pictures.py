"""One picture file as a tensor, as a viewer would show it. Knows no data set."""

from typing import Any

import numpy as np
from torch import Tensor

from mpiadv.process.errors import UserError

DEEPEST = 65535
"""White in a picture of 16 bits."""


def read_picture(path: str, image_size: int | None) -> Tensor:
    """The first frame of a picture file as RGB: uint8 [3, H, W], float32 in [0, 1] if it is deep.

    Turned as its EXIF orientation says; what is transparent is taken as if it were not. Pictures
    of 16 bits are divided by 65,535, those of floats are to be in [0, 1].

    Raises:
        UserError: it cannot be read, is damaged, or nobody can know what its numbers mean.
    """
    try:
        return _as_tensor(_opened(path), image_size)
    except UserError as error:
        raise UserError(f"image {path}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"image {path} cannot be read: {error.strerror}") from error
        # PIL raises many types for damaged files: OSError, SyntaxError, ValueError, struct.error.
        reason = str(error).replace(f" {path!r}", "")
        raise UserError(
            f"cannot decode image {path}: {reason}: replace or remove the file"
        ) from error


def _opened(path: str) -> Any:
    """The picture in one of PIL's modes RGB, or F in [0, 1]."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        turned = ImageOps.exif_transpose(picture)
        if turned.mode.startswith("I;16") or (turned.mode == "I" and picture.format == "PNG"):
            return Image.fromarray(np.asarray(turned, np.float32) / np.float32(DEEPEST))
        if turned.mode == "F":
            _require_unit_range(turned)
            return turned
        if turned.mode == "I":
            raise UserError(
                "holds whole numbers of 32 bits, or with a sign, and nothing says which of them is "
                "white: save it with 8 or 16 bits"
            )
        if "transparency" in turned.info:
            turned = turned.convert("RGBA")  # PIL warns of colours that are partly transparent
        return turned.convert("RGB")


def _require_unit_range(picture: Any) -> None:
    pixels = np.asarray(picture)
    low, high = float(pixels.min()), float(pixels.max())
    # Negated, so that pixels that are not a number are refused too.
    if not (low >= 0 and high <= 1):
        raise UserError(f"float pixels from {low:g} to {high:g}, expected [0, 1]: scale them")


def _as_tensor(picture: Any, image_size: int | None) -> Tensor:
    from torchvision.transforms import functional

    if image_size is not None:
        picture = functional.center_crop(functional.resize(picture, image_size), [image_size] * 2)
    pixels: Tensor = functional.pil_to_tensor(picture)
    if pixels.is_floating_point():
        return pixels.clamp(0, 1).expand(3, -1, -1).contiguous()
    return pixels
