"""Which studies there are."""

from collections.abc import Mapping

from mpiadv.studies.definition import Study
from mpiadv.studies.headline import HEADLINE
from mpiadv.studies.methods import METHODS_STUDY
from mpiadv.studies.mixture import MIXTURE
from mpiadv.studies.power import POWER
from mpiadv.studies.speedup import SPEEDUP
from mpiadv.studies.staleness import STALENESS
from mpiadv.studies.transfer import TRANSFER

STUDIES: Mapping[str, Study] = {
    "headline": HEADLINE,
    "methods": METHODS_STUDY,
    "mixture": MIXTURE,
    "power": POWER,
    "speedup": SPEEDUP,
    "staleness": STALENESS,
    "transfer": TRANSFER,
}
"""Studies by name; their ranges are in `presets`."""
