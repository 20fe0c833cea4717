"""Settings that somebody changed although nothing reads them, the others being what they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class ReadWith:
    """Beside a field: it is read only where its section `has` what `text` says."""

    text: str
    has: Callable[[Any], bool]


def read_with_name(*names: str) -> ReadWith:
    """The field is read only where its section's `name` is one of these."""
    return ReadWith(f"name={'|'.join(names)}", lambda section: section.name in names)


def unread_settings(config: BaseModel) -> Iterator[str]:
    """A line for each setting that differs from its default, and has no effect."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            yield from _unread(name, section)


def _unread(name: str, section: BaseModel) -> Iterator[str]:
    usual = type(section)()
    for key, field in type(section).model_fields.items():
        if getattr(section, key) == getattr(usual, key):
            continue
        for needed in field.metadata:
            if isinstance(needed, ReadWith) and not needed.has(section):
                yield f"{name}.{key} has no effect: it is read only with {name}.{needed.text}"
