"""Which studies there are."""

from collections.abc import Mapping

from mpiadv.study.definition import Study
from mpiadv.study.power import POWER

STUDIES: Mapping[str, Study] = {
    "power": POWER,
}
"""Studies by name; their ranges are in `presets`."""
