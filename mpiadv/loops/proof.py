"""Whether a batch is the one that was to be crafted. Knows no MPI and no torch."""

from mpiadv.comm.links import Delivery
from mpiadv.comm.messages import Fate
from mpiadv.contract.accounts import Provenance
from mpiadv.contract.craft_queue import Versions
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import StalenessRule


def flaw_of(delivery: Delivery, dispatcher: Dispatcher, published: Versions, *, exact: bool) -> str:
    """Why a batch cannot be what its attacker was to craft; empty where it is.

    `published`: the versions held here with their attack settings; those of a ticket that was
    consumed meanwhile are gone, and its batch is thrown away in any case.
    """
    header, rule = delivery.slot.header, dispatcher.rule
    origin, ticket = header.origin, header.origin.ticket
    number = rule.number(ticket)
    if ticket not in dispatcher.owed_by(delivery.attacker):
        return f"sent ticket {number}, which it was not granted"
    settings = published.get(rule.first_version(ticket))
    if header.fate is not Fate.CRAFTED or settings is None:
        return ""
    if origin.settings != settings:
        return f"attacked ticket {number} with {origin.settings}, not with {settings}"
    try:
        verify(origin, rule, exact=exact)
    except AssertionError as error:
        return f"says that {error}"
    return ""


def verify(origin: Provenance, rule: StalenessRule, *, exact: bool) -> None:
    """Check the versions that a batch was crafted on. Raises as `StalenessRule.verify` does."""
    if origin.step != rule.step_of(origin.ticket):
        raise AssertionError(f"ticket {origin.ticket} is of step {origin.step}: {rule}")
    rule.verify(
        origin.ticket,
        first=origin.first_version,
        last=origin.last_version,
        num_steps=origin.settings.num_steps,
        exact=exact,
    )
