"""Lengths in pixels of [0, 1], as people write them. Pure."""

import math
import re

from mpiadv.process.errors import UserError

DECIMAL = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
"""A number as people write it: no underscores, no infinity."""

EXPECTED = "a number of pixels in [0, 1], or a fraction such as 8/255"

RELATIVE_STEP_SIZE = 2.5
"""Steps of attacks in units of epsilon / num_steps where none are given, as in Bhat et al. 2019:
enough to cross the ball, and some of them to spare."""

FITTING_STEPS = f"{RELATIVE_STEP_SIZE:g} epsilon / steps"
"""Their length in words."""


_LENGTH = re.compile(rf"({DECIMAL})(?: */ *({DECIMAL}))?")


def read_pixels(text: str) -> float:
    """A number, or a fraction such as 8/255.

    Raises:
        ValueError: it is neither, or not finite.
    """
    written = _LENGTH.fullmatch(text.strip())
    divisor = float(written[2] or 1) if written else 0.0
    value = float(written[1]) / divisor if written and divisor else math.inf
    if not math.isfinite(value):
        raise ValueError(f"expected {EXPECTED}")
    return value


def require_length(key: str, pixels: float, norm: str, num_pixels: int | None = None) -> None:
    """Refuse a radius, or a step, that reaches more than there is: it is no attack any more.

    In linf that is more than 1. In l2 and l1 it depends on the `num_pixels` of an image, of all its
    channels; None: they are not known yet.

    Raises:
        UserError: naming `key`, the setting.
    """
    if norm == "linf" and pixels > 1:
        meant = f"is {pixels:g}/255 meant?" if pixels <= 255 else "expected at most 1"
        raise UserError(f"{key}={pixels:g}: pixels are in [0, 1]: {meant}")
    if norm == "linf" or num_pixels is None:
        return
    diameter = math.sqrt(num_pixels) if norm == "l2" else float(num_pixels)
    if pixels >= diameter:
        raise UserError(
            f"{key}={pixels:g} reaches every image from every other: those of {num_pixels} pixels "
            f"in [0, 1] are at most {diameter:.6g} apart in {norm}: expected less"
        )


def require_shift(key: str, pixels: float, image_shape: tuple[int, int, int]) -> None:
    """Refuse a largest shift that by itself can move all of an image [C, H, W] out of sight.

    Raises:
        UserError: naming `key`, the setting.
    """
    shortest_side = min(image_shape[1:])
    if pixels >= shortest_side:
        raise UserError(
            f"{key}={pixels:g} shifts images of {image_shape[1]}x{image_shape[2]} pixels out of "
            f"sight: expected less than {shortest_side}"
        )
