"""From names to functions: a part's registered names, or a user's dotted name. Knows no part."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mpiadv.errors import UserError

T = TypeVar("T")


def find_registered(kind: str, name: str, registered: Mapping[str, T]) -> T:
    """The entry of a registry called `name`.

    Raises:
        UserError: there is none; the line names the nearest known one.
    """
    if name not in registered:
        nearest = difflib.get_close_matches(name, registered, n=1, cutoff=0.0)
        known = ", ".join(sorted(registered))
        raise UserError(f"unknown {kind} {name!r}: did you mean {nearest[0]!r}? Known: {known}")
    return registered[name]


def is_dotted(name: str) -> bool:
    """Whether `name` is a user's `my_package.my_module:function`."""
    return ":" in name and not name.startswith("torchvision:")


def import_dotted(kind: str, name: str) -> Callable[..., Any]:
    """The function that `my_package.my_module:function` names; the working folder is searched too.

    Raises:
        UserError: no such module or function, or the module fails on import.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{kind} {name!r}: cannot import {module_name!r}: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"{kind} {name!r}: module {module_name!r} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]
