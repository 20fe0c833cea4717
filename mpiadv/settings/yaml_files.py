"""Settings in YAML. Knows none of them by name.

Not all of YAML 1.1 is taken: 010 and 1:30 are text, not 8 and 90, and a date is text; a key is
there once; nothing refers to anything else, which makes gigabytes of a few lines.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from mpiadv.process.errors import UserError
from mpiadv.storage.small_files import read_small

MOST_LEVELS = 32
"""Of sections within sections."""

_MOST_BYTES = 2**18
"""Of a file: reading it takes a few seconds."""

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    f"{_TAG}int": r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+",
    f"{_TAG}float": r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
}  # fmt: skip
_KEPT = [f"{_TAG}{name}" for name in ("bool", "null")]
_TYPES = [*_NUMBERS, *_KEPT, *(f"{_TAG}{name}" for name in ("str", "seq", "map"))]


class _Loader(yaml.SafeLoader):
    """Reads what the module says; every refusal is a `MarkedYAMLError`."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the tree, unless it is a reference or lies too deep."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor:
            raise _refusal(event, "references (& and *) are not taken: write it out")
        if self.level > MOST_LEVELS:
            raise _refusal(event, f"more than {MOST_LEVELS} levels")
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping, unless a key is there twice."""
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        seen: set[str] = set()
        for key in keys:
            if str(key.value) in seen:
                raise _refusal(key, f"the key {key.value!r} is there twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: Any) -> Any:
        """A text, unless it holds what no file name and no log can hold."""
        text = super().construct_scalar(node)
        if re.search("[\0\ud800-\udfff]", str(text)):
            raise _refusal(node, "a character that is none: NUL, or half of a pair")
        return text


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` or a reader of YAML 1.1 would not take for text; refers to nothing."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whatever is there twice is written twice."""
        return True


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag in _TYPES
}
for _tag, _pattern in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """The value that YAML text stands for.

    Raises:
        yaml.YAMLError: it is not YAML, or more of it than is taken here.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        raise yaml.YAMLError(str(error)) from None


def dump_yaml(tree: Any) -> str:
    """A value as YAML text that `parse_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def read_settings(path: Path) -> dict[str, Any]:
    """The nested mapping in a YAML file; an empty file is an empty one.

    Raises:
        UserError: it cannot be read, is not YAML or holds something else.
    """
    try:
        tree = parse_yaml(read_small(path, _MOST_BYTES).decode())
    except OSError as error:
        raise UserError(
            f"cannot read configuration {path}: {error.strerror}{_meant(path, error)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {where_and_why(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _meant(path: Path, error: OSError) -> str:
    """What a file that is not there, or is none, may have been meant for."""
    if isinstance(error, IsADirectoryError):
        return ", expected a YAML file; to go on with a run, repeat its words and add --resume"
    if not isinstance(error, FileNotFoundError):
        return ""
    there = path.parent.glob("*.y*ml")
    near = difflib.get_close_matches(path.name, [each.name for each in there], n=1)
    return f": did you mean {path.with_name(near[0])}?" if near else ""


def where_and_why(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong with YAML, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark and error.problem:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _refusal(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)
