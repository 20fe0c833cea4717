"""Which studies there are."""

from collections.abc import Mapping

from mpiadv.study.definition import Study
from mpiadv.study.power import POWER
from mpiadv.study.staleness import STALENESS
from mpiadv.study.speedup import SPEEDUP
from mpiadv.study.transfer import TRANSFER

STUDIES: Mapping[str, Study] = {
    "power": POWER,
    "speedup": SPEEDUP,
    "staleness": STALENESS,
    "transfer": TRANSFER,
}
"""Studies by name; their ranges are in `presets`."""
