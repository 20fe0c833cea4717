"""Which studies there are."""

from collections.abc import Mapping

from mpiadv.study.definition import Study
from mpiadv.study.headline import HEADLINE
from mpiadv.study.power import POWER
from mpiadv.study.speedup import SPEEDUP
from mpiadv.study.staleness import STALENESS
from mpiadv.study.transfer import TRANSFER

STUDIES: Mapping[str, Study] = {
    "headline": HEADLINE,
    "power": POWER,
    "speedup": SPEEDUP,
    "staleness": STALENESS,
    "transfer": TRANSFER,
}
"""Studies by name; their ranges are in `presets`."""
