"""Tables and sentences of the staleness study, the paper's numbers beside ours. Draws nothing."""

from collections.abc import Mapping
from dataclasses import replace

from mpiadv.studies.perturbation_figures import Perturbations
from mpiadv.studies.results import Table, percent
from mpiadv.studies.staleness_figures import PAPER_ADVERSARIAL, PAPER_NATURAL
from mpiadv.studies.staleness_runs import (
    HARMLESS_LOSS,
    Finding,
    Findings,
    State,
    fresh_accuracy,
    is_of_the_papers_data,
    limits,
    stale_accuracy,
)


def introduction(findings: Findings) -> list[str]:
    """What was done, and what came out, in paragraphs."""
    return [
        "Batches crafted in parallel are attacks on parameters that training has left behind. "
        "Here one rank simulates that: every attack step of a batch is run on the parameters of "
        "exactly s training steps ago, those of the first s batches on the parameters at the "
        "start, so nothing but the staleness differs between runs.",
        *filter(None, [_verdict(findings), _long_verdict(findings)]),
    ]


def constant_table(findings: Findings) -> Table:
    """Figure 8 in numbers, beside the paper's where the data set is the same."""
    lines = findings.constant
    table = Table(
        title="Constant staleness",
        caption="Accuracies in percent: at the run's end on test images, natural and attacked; on "
        "its last tenth of training batches, as crafted (stale) and attacked again with current "
        "parameters (fresh).",
        headings=[
            "staleness", "state", "natural", "adversarial", "stale batches", "fresh batches",
        ],
        rows=[_constant_row(s, finding) for s, finding in lines.items()],
    )  # fmt: skip
    if not is_of_the_papers_data(lines.values()):
        return table
    return replace(
        table,
        caption=f"{table.caption} The paper's, read off its figure 8, are for Adam at a constant "
        "rate of 1e-4 and 60,000 steps, with 89 to 91 when synchronous.",
        headings=[*table.headings, "paper: natural", "paper: adversarial"],
        rows=[[*row, *_paper_cells(s)] for s, row in zip(lines, table.rows, strict=True)],
    )


def cycle_table(by_staleness: Mapping[int, Perturbations]) -> Table | None:
    """Where perturbations cycle, and how fast."""
    if not by_staleness:
        return None
    return Table(
        title="Cycling of the perturbations",
        caption="The first minimum of the autocorrelation C and the maximum that follows, one "
        "cycle later: lags in training steps. Lags reach up to half of the run; a dash: C shows "
        "none within them.",
        headings=[
            "staleness", "snapshots", "steps between", "minimum at lag", "C there",
            "maximum at lag (period)", "C there", "period / staleness",
        ],
        rows=[_cycle_row(s, shown) for s, shown in by_staleness.items()],
    )  # fmt: skip


def refreshed_table(findings: Findings) -> Table:
    """Adversarial and natural accuracy by staleness of the first and last attack step."""
    finals = sorted({final for line in findings.refreshed.values() for final in line})
    return Table(
        title="Constant against refreshed attacks",
        caption="Adversarial accuracy / natural accuracy (%) at the run's end. Rows: staleness of "
        "the first attack step; columns: of the last. Equal numbers are constant staleness.",
        headings=["first \\ last", *map(str, finals)],
        rows=[
            [str(largest), *(_pair(line[final]) if final in line else "" for final in finals)]
            for largest, line in findings.refreshed.items()
        ],
    )


def rate_table(findings: Findings) -> Table:
    """The map of accuracy over learning rate and staleness, in numbers."""
    columns = list(next(iter(findings.by_rate.values()), {}))
    return Table(
        title="Staleness and learning rate",
        caption="Adversarial accuracy / natural accuracy (%) at the run's end. Rows: learning "
        "rate (the peak where the schedule has one); columns: constant staleness.",
        headings=["learning rate", *map(str, columns)],
        rows=[
            [f"{rate:g}", *(_pair(finding) for finding in line.values())]
            for rate, line in findings.by_rate.items()
        ],
    )


def _constant_row(staleness: int, finding: Finding) -> list[str]:
    log = finding.log
    trained = log is not None and len(log.train) > 0
    return [
        str(staleness),
        _state(finding),
        percent(finding.natural),
        percent(finding.adversarial),
        percent(stale_accuracy(log)) if log is not None and trained else "-",
        percent(fresh_accuracy(log)) if log is not None and trained else "-",
    ]


def _paper_cells(staleness: int) -> list[str]:
    paper = PAPER_ADVERSARIAL.get(staleness)
    robust = "89 to 91" if staleness == 0 else f"about {100 * paper:.0f}" if paper else "-"
    return [f"about {100 * PAPER_NATURAL:.0f}", robust]


def _cycle_row(staleness: int, shown: Perturbations) -> list[str]:
    cycle = shown.cycle
    beginning = [str(staleness), str(len(shown.steps)), str(shown.every)]
    if cycle is None:
        return [*beginning, *["-"] * 5]
    low = [str(cycle.half), f"{cycle.lowest:.2f}"]
    if cycle.period is None:
        return [*beginning, *low, *["-"] * 3]
    ratio = f"{cycle.period / staleness:.1f}" if staleness else "-"
    return [*beginning, *low, str(cycle.period), f"{cycle.returning:.2f}", ratio]


def _state(finding: Finding) -> str:
    return (
        f"after step {finding.step}" if finding.state is State.UNFINISHED else finding.state.value
    )


def _pair(finding: Finding) -> str:
    if finding.state in (State.MISSING, State.DIVERGED):
        return _state(finding)
    numbers = f"{percent(finding.adversarial)} / {percent(finding.natural)}"
    return numbers if finding.is_judged else f"{numbers} {_state(finding)}"


def _verdict(findings: Findings) -> str:
    found = limits(findings.constant)
    if found is None:
        return ""
    reference = findings.constant[found.reference]
    sentences = [
        f"At learning rate {findings.base_rate:g} and {reference.step} steps, staleness "
        f"{found.reference} ends at {percent(reference.adversarial)} % adversarial and "
        f"{percent(reference.natural)} % natural accuracy, on {reference.num_images} test images."
    ]
    if found.harmless is not None:
        sentences.append(
            f"Staleness up to {found.harmless} costs at most {100 * HARMLESS_LOSS:.0f} points."
        )
    if found.collapsed is None:
        sentences.append("No staleness that was tried takes more than half of the robustness.")
    else:
        sentences.append(_collapse(found.collapsed, findings.constant[found.collapsed]))
    if found.unlearnt:
        sentences.append(
            f"At {', '.join(map(str, found.unlearnt))} nothing was learnt: natural accuracy, too, "
            "is less than half."
        )
    sentences.append("The paper's network stood 32 and collapsed at 64, at a rate of 1e-4.")
    return " ".join(sentences)


def _collapse(staleness: int, finding: Finding) -> str:
    if finding.state is State.DIVERGED:
        return f"From {staleness} on robustness is lost: training diverged."
    return (
        f"At {staleness} it has collapsed: {percent(finding.adversarial)} % adversarial, "
        f"{percent(finding.natural)} % natural."
    )


def _long_verdict(findings: Findings) -> str:
    long, found = findings.long, limits(findings.constant)
    if long.state is State.MISSING:
        return ""
    staleness = int(long.run.overrides["staleness.max_staleness"])
    short = findings.constant.get(staleness)
    before = f", after {percent(short.adversarial)} % without" if short and short.is_judged else ""
    told = (
        f"The long run at staleness {staleness} diverged."
        if long.state is State.DIVERGED
        else f"The long run at staleness {staleness} reached {percent(long.adversarial)} % "
        f"adversarial accuracy after {long.step} steps{before}."
    )
    if found is None or found.collapsed in (None, staleness):
        return told
    return (
        f"{told} The smallest staleness that collapsed is {found.collapsed}: for the long run "
        f"there, study.long_staleness={found.collapsed} in another folder."
    )
