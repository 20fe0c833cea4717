"""From names to functions: a part's registered names, or a user's dotted name. Knows no part."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from mpiadv.process.errors import UserError, user_code

T = TypeVar("T")


def find_registered(kind: str, name: str, registered: Mapping[str, T]) -> T:
    """The entry of a registry called `name`.

    Raises:
        UserError: there is none; the line names the nearest known one.
    """
    if name not in registered:
        nearest = difflib.get_close_matches(name.lower(), registered, n=1, cutoff=0.0)
        known = ", ".join(sorted(registered))
        raise UserError(f"unknown {kind} {name!r}: did you mean {nearest[0]!r}? Known: {known}")
    return registered[name]


def is_dotted(name: str) -> bool:
    """Whether `name` is a user's `my_package.my_module:function`."""
    return ":" in name and not name.startswith(("torchvision:", "timm:"))


def import_dotted(kind: str, name: str) -> Callable[..., Any]:
    """The function that `my_package.my_module:function` names; the working folder is searched too.

    Raises:
        UserError: no such module or function, or the module fails, or ends the program, on import.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    with user_code(f"{kind} {name!r}: cannot import {module_name!r}"), _quiet_if_refused():
        module = importlib.import_module(module_name)
        function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"{kind} {name!r}: module {module_name!r} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]


@contextmanager
def _quiet_if_refused() -> Iterator[None]:
    """Keep back what is written to standard error, and drop it where the program would be ended.

    A module that parses our command line as its own would otherwise write its usage from each rank.
    """
    held = _Held(sys.stderr)
    sys.stderr = held
    try:
        yield
    except SystemExit:
        held.text.clear()
        raise
    finally:
        sys.stderr = held.stream
        held.release()


class _Held:
    """A stream whose text is kept back until `release`; whoever took it writes on after that."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text: list[str] = []
        self._is_released = False

    def write(self, text: str) -> int:
        if self._is_released:
            return self.stream.write(text)
        self.text.append(text)
        return len(text)

    def release(self) -> None:
        self._is_released = True
        self.stream.write("".join(self.text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
