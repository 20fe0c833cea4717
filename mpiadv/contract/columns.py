"""Records of dataclasses: what a message, a row or a file says is written once, in their fields.

A field's type says how it travels: int, float, bool, an `IntEnum`, or a dataclass, which is a part
and may have parts. `column` says what else is to be known of it: a field that has a unit is a
column of a table, and so are those of a part, in the part's place. A field with `init=False`
follows from the others: it is a column and does not travel. Knows no message and no file.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
from math import nan
from typing import Any, TypeVar

import numpy as np

SaidT = TypeVar("SaidT")
"""A dataclass whose objects are records."""

_KINDS: Mapping[type, str] = {bool: "?", float: "f8"}


def column(
    kind: str, unit: str, *, name: str = "", init: bool = True, default: Any = MISSING
) -> Any:
    """A field that is a column: its NumPy type, its unit or meaning, and its name in tables.

    `S` and a number of bytes is the type of text.
    """
    metadata = {"kind": kind, "unit": unit, "name": name}
    return field(init=init, default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table; `path` leads from a row object to its value."""

    name: str
    path: str
    kind: str
    unit: str


def columns_of(said: type) -> list[Column]:
    """The columns of the table whose rows are objects of `said`."""
    columns: list[Column] = []
    for item in fields(said):
        if is_dataclass(item.type):
            parts = columns_of(_type(item))
            columns += [replace(part, path=f"{item.name}.{part.path}") for part in parts]
        elif "unit" in item.metadata:
            name, (kind, unit) = item.metadata["name"], _told(item)
            columns.append(Column(name=name or item.name, path=item.name, kind=kind, unit=unit))
    return columns


def record_type(said: type) -> np.dtype[np.void]:
    """The NumPy type of `said` as it travels: a record, its parts records within."""
    return np.dtype(
        [
            (item.name, record_type(_type(item)) if is_dataclass(item.type) else _told(item)[0])
            for item in _travelling(said)
        ]
    )


def to_record(said: Any) -> tuple[Any, ...]:
    """What an object says, in the order of its `record_type`."""
    kind: Any = type(said)  # to mypy a class is not always hashable
    return tuple(write(getattr(said, name)) for name, write in _writers(kind))


def from_record(said: type[SaidT], record: tuple[Any, ...]) -> SaidT:
    """The object whose `to_record`, or the `item()` of a NumPy record of it, this is."""
    kind: Any = said
    values = zip(_readers(kind), record, strict=True)
    return said(**{name: read(value) for (name, read), value in values})


def blank(said: type[SaidT], **known: Any) -> SaidT:
    """An object that says no more than what is `known`: NaN, zero, no text or defaults else."""
    unsaid = (item for item in _travelling(said) if item.default is MISSING)
    return said(**{item.name: _nothing(_type(item)) for item in unsaid} | known)


def cut_text(text: str, length: int) -> bytes:
    """`text` in UTF-8, cut to at most `length` bytes, never inside a character."""
    data = text.encode("utf-8", errors="replace")
    return data[:length].decode("utf-8", errors="ignore").encode("utf-8")


def _travelling(said: type) -> tuple["Field[Any]", ...]:
    return tuple(item for item in fields(said) if item.init)


def _type(item: "Field[Any]") -> type:
    assert isinstance(item.type, type)
    return item.type


def _told(item: "Field[Any]") -> tuple[str, str]:
    """The NumPy type of a field that is no part, and its unit."""
    kind = item.metadata.get("kind", _KINDS.get(_type(item), "i8"))
    return kind, item.metadata.get("unit", "")


@cache
def _writers(said: type) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """The names of what travels, and what makes of a value what stands in the record."""
    return tuple((item.name, _writer(item)) for item in _travelling(said))


def _writer(item: "Field[Any]") -> Callable[[Any], Any]:
    if is_dataclass(item.type):
        return to_record
    if item.type is str:
        return partial(cut_text, length=int(_told(item)[0][1:]))
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


@cache
def _readers(said: type) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """The names of what travels, and what makes a value of what stands in the record."""
    return tuple((item.name, _reader(_type(item))) for item in _travelling(said))


def _reader(kind: type) -> Callable[[Any], Any]:
    if is_dataclass(kind):
        return partial(from_record, kind)
    return _decoded if kind is str else kind


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _nothing(said: type) -> Any:
    if is_dataclass(said):
        return blank(said)
    return {float: nan, str: ""}.get(said, 0)
