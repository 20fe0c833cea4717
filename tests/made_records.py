"""Records of the dataclasses that messages and the log are made of, for tests."""

from dataclasses import fields, is_dataclass
from typing import Any

from mpiadv.comm.messages import BatchHeader, Fate, VersionHeader
from mpiadv.contract.accounts import NOTHING, Provenance
from mpiadv.contract.columns import SaidT, blank


def made(said: type[SaidT], **values: Any) -> SaidT:
    """An object of `said` with these values of its fields or its parts', by their columns' names.

    Where none is given it says nothing: NaN, zero or no text.
    """
    known = {}
    for item in fields(said):
        name = item.metadata.get("name") or item.name
        if is_dataclass(item.type):
            known[item.name] = made(item.type, **values)
        elif item.init and name in values:
            known[item.name] = values[name]
    return blank(said, **known)


def version_header(version: int, **values: Any) -> VersionHeader:
    return made(VersionHeader, version=version, **values)


def batch_header(
    ticket: int, *, rank: int, fate: Fate = Fate.CRAFTED, **values: Any
) -> BatchHeader:
    origin = made(Provenance, ticket=ticket, rank=rank, **{"step": ticket, **values})
    return blank(BatchHeader, fate=fate, origin=origin, probe=NOTHING)
