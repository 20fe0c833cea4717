"""Staleness: attacks on parameters that training has left behind (Bhat et al., figures 5 to 8).

Beyond the paper: attacks that are refreshed while they are crafted, and how the staleness that a
run stands depends on its learning rate. Draws from logs alone: knows no torch.
"""

from collections.abc import Iterator

from mpiadv.process.errors import UserError
from mpiadv.report.drawing import Picture
from mpiadv.report.reading import read_snapshots
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.perturbation_figures import (
    Perturbations,
    autocorrelations,
    perturbation_strip,
    perturbations_of,
)
from mpiadv.studies.results import Results, Table
from mpiadv.studies.staleness_figures import (
    accuracy_by_staleness,
    long_training,
    rate_map,
    refreshed_attacks,
    stale_and_fresh,
)
from mpiadv.studies.staleness_runs import (
    Finding,
    Findings,
    most_telling,
    read_findings,
    runs,
)
from mpiadv.studies.staleness_tables import (
    constant_table,
    cycle_table,
    introduction,
    rate_table,
    refreshed_table,
)

_IMAGES_COMPARED = 16
"""Images of each snapshot whose perturbations are compared over time."""


def show(folder: StudyFolder) -> Results:
    """Figures 5 to 8 and what goes beyond them, each followed by its table."""
    findings = read_findings(folder)
    known = {s: shown for s, finding in findings.constant.items() if (shown := _watched(finding))}
    telling = {s: known[s] for s in most_telling(findings.constant) if s in known}
    parts: list[Picture | Table | None] = [
        accuracy_by_staleness(findings),
        constant_table(findings),
        stale_and_fresh(findings),
        perturbation_strip(telling),
        autocorrelations(known),
        cycle_table(known),
        long_training(findings),
        *_beyond_the_paper(findings),
    ]
    return Results(
        title="Staleness: attacks on parameters of the past",
        introduction=introduction(findings),
        parts=[part for part in parts if part is not None],
    )


def _beyond_the_paper(findings: Findings) -> Iterator[Picture | Table | None]:
    refreshed, rates = refreshed_attacks(findings), rate_map(findings)
    yield from (refreshed, refreshed_table(findings) if refreshed else None)
    yield from (rates, rate_table(findings) if rates else None)


def _watched(finding: Finding) -> Perturbations | None:
    """A run's perturbations; None where its log has none, or is gone."""
    if finding.log is None:
        return None
    try:
        return perturbations_of(read_snapshots(finding.log, num_images=_IMAGES_COMPARED))
    except UserError:
        return None


STALENESS = Study(
    runs=runs,
    show=show,
)
