"""The numbers of the configuration: how they are read, and that each has bounds. Knows no setting.

Not all that Python would take for a number is one that somebody meant: true, 1.0 steps, '010'.
"""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from mpiadv.settings.pixels import DECIMAL, EXPECTED, read_pixels

MOST_STEPS = 10**9
"""Of training: at a thousand a second, twelve days."""
MOST_SAMPLES = 10**9
MOST_STALENESS = 65_536
"""Versions that are still needed are held in memory."""
YEAR = 366 * 86_400
"""Seconds. Nobody waits longer, and clocks of some systems do not count much further."""

_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(DECIMAL)


def _whole(value: Any) -> Any:
    is_text = isinstance(value, str) and _WHOLE.fullmatch(value)
    if isinstance(value, float) and 2**53 <= value < math.inf:
        return int(value)  # whatever was meant, the upper bound is what to tell
    if isinstance(value, bool) or not (isinstance(value, int) or is_text):
        raise PydanticCustomError("whole_number", "expected a whole number")
    return value


def _number(value: Any) -> Any:
    # PyYAML takes 5e-2, without a point, for text.
    is_text = isinstance(value, str) and _DECIMAL.fullmatch(value)
    if isinstance(value, bool) or not (isinstance(value, int | float) or is_text):
        raise PydanticCustomError("number", "expected a number")
    return value


def _pixels(value: Any) -> Any:
    if not isinstance(value, str):
        return _number(value)
    try:
        return read_pixels(value)
    except ValueError:
        raise PydanticCustomError("pixels", f"expected {EXPECTED}") from None


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise PydanticCustomError("power_of_two", "expected 1, 2, 4, 8, ...")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=0)]
AtLeastOne = Annotated[Whole, Field(ge=1)]
"""Both want an upper bound of their own where they are used: `Annotated[Count, Field(le=...)]`."""
PowerOfTwo = Annotated[Whole, Field(ge=1, le=1024), AfterValidator(_power_of_two)]

Number = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0, le=1e6)]
Seconds = Annotated[Number, Field(gt=0, le=YEAR)]

Radius = Annotated[float, BeforeValidator(_pixels), Field(ge=0, le=1e6)]
"""In pixels of [0, 1]; what its norm makes of it, `mpiadv.settings.pixels` says."""
StepSize = Annotated[float, BeforeValidator(_pixels), Field(gt=0, le=1e6)]
