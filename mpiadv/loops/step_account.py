"""What is told of the tickets of a training step, as of one. Knows no MPI and no torch."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, isnan, nan
from statistics import fmean

from mpiadv.comm.messages import BatchHeader
from mpiadv.contract.accounts import CraftReport, Outcome, Provenance, TicketTold
from mpiadv.contract.pairwise import pairwise_mean
from mpiadv.process.errors import NonFiniteLossError


def outcome_of(tickets: Sequence[TicketTold], learning_rate: float) -> Outcome:
    """The mean of what all tickets of a step told, of all trainers', in their order."""
    magnitudes = [ticket.gradient_magnitude for ticket in tickets]
    known = [magnitude for magnitude in magnitudes if magnitude is not None]
    return Outcome(
        loss=pairwise_mean([ticket.loss for ticket in tickets]),
        accuracy=pairwise_mean([ticket.accuracy for ticket in tickets]),
        learning_rate=learning_rate,
        gradient_magnitude=pairwise_mean(known) if len(known) == len(magnitudes) else None,
    )


def header_of(headers: Sequence[BatchHeader], outcome: Outcome) -> BatchHeader:
    """Number, rank and seconds of the first, of versions the oldest, of reports the mean.

    But the gradient's magnitude of `outcome`, where the last look at the slope was the trainer's.
    """
    first, origins = headers[0], [header.origin for header in headers]
    reports = [header.report for header in headers]
    taken = [r.natural_accuracy for r in reports if not isnan(r.natural_accuracy)]
    magnitude = outcome.gradient_magnitude
    if magnitude is None:
        magnitude = pairwise_mean([report.gradient_magnitude for report in reports])
    return replace(
        first,
        origin=replace(
            first.origin,
            first_version=min(origin.first_version for origin in origins),
            last_version=min(origin.last_version for origin in origins),
        ),
        report=CraftReport(
            natural_accuracy=fmean(taken) if taken else nan,
            gradient_magnitude=magnitude,
        ),
    )


def require_finite(outcome: Outcome, last: Provenance) -> None:
    """Refuse to go on from a loss that is none; `last` is of the ticket that completed the step.

    Raises:
        NonFiniteLossError: it is NaN or infinite.
    """
    if not isfinite(outcome.loss):
        raise NonFiniteLossError(
            f"the training loss is {outcome.loss} at step {last.step}, ticket {last.ticket} "
            f"(crafted by rank {last.rank}): lower optimizer.learning_rate or check the data"
        )
