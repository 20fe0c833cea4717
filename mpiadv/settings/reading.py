"""From words and files to a configuration, and back; what is wrong with them in one line.

Files never choose code that is run: only command lines may.
"""

import copy
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mpiadv.command_lines.described import TRUST_OPTION
from mpiadv.process.errors import UserError, abridged, shown
from mpiadv.settings.config import Config
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.registry import is_dotted
from mpiadv.settings.yaml_files import (
    MOST_LEVELS,
    dump_yaml,
    parse_yaml,
    read_settings,
    where_and_why,
)

_TEXTS = {"output", "data.name", "data.root", "model.name", "attack.name", "objective.name"}
"""Settings that are names, as which a command line may give 12345, or `a #1`, without quotes."""
_QUOTES = ("'", '"')
_NOTHING = ("", "~", "null")


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, trust_code: bool = False
) -> Config:
    """Read a YAML file, or take the defaults, apply `key.subkey=value` overrides, validate.

    Raises:
        UserError: one line naming the first key that is wrong, and what was expected; also where
            the file names code that no override names, unless `trust_code`.
    """
    require_list(overrides)
    tree = {} if path is None else read_settings(Path(path))
    return override_config(tree, overrides, trusted=None if trust_code else ())


def require_list(overrides: object) -> None:
    """Raises UserError: they are not several texts, but one, or anything else."""
    if isinstance(overrides, list | tuple) and all(isinstance(each, str) for each in overrides):
        return
    raise UserError(f'overrides={shown(overrides)}: expected a list, as ["key.subkey=value"]')


def read_words(words: Sequence[str], *, trust_code: bool = False) -> Config:
    """The configuration of a command line: a file, if it comes first, then overrides.

    Raises as `load_config` does.
    """
    path = words[0] if words and "=" not in words[0] else None
    return load_config(path, words[path is not None :], trust_code=trust_code)


def override_config(
    tree: Mapping[str, Any], overrides: Sequence[str], *, trusted: Collection[str] | None = ()
) -> Config:
    """Apply `key.subkey=value` overrides to a nested mapping, validate. Raises as `load_config`.

    Of code, `trusted` is what the command line has named besides; None: all that the tree names.
    """
    changed, said = copy.deepcopy(dict(tree)), dict[str, Any]()
    given: dict[str, str] = {}
    for override in overrides:
        key, value = _read_override(override)
        _refuse_second(key, override, given)
        for each in (changed, said):
            _apply_override(each, key, value, override)
    config = parse_config(changed)
    _require_chosen(config, said, trusted)
    return config


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Validate a nested mapping. Raises UserError as `load_config` does."""
    _refuse_unknown_keys(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_first_line(error)) from None


def code_words(config: Config) -> list[str]:
    """The user's functions that a configuration names, each as `section.name=module:function`."""
    named = {
        "model.name": config.model.name,
        "data.name": config.data.name,
        "attack.name": config.attack.name,
    }
    return [f"{key}={name}" for key, name in named.items() if is_dotted(name)]


def _require_chosen(
    config: Config, said: Mapping[str, Any], trusted: Collection[str] | None
) -> None:
    """Refuse code that a file has chosen.

    Args:
        config: what came of file and command line.
        said: the settings of the command line alone, nested.
        trusted: what the command line has said besides, as `code_words`; None: everything.

    Raises:
        UserError: naming the settings that only a file says.
    """
    if trusted is None:
        return
    of_command_line = {f"{key}={value}" for key, value in flatten(said).items()}
    of_files = [
        word for word in code_words(config) if word not in of_command_line and word not in trusted
    ]
    if of_files:
        verb, it = ("come", "them") if len(of_files) > 1 else ("comes", "it")
        raise UserError(
            f"{' and '.join(of_files)} {verb} from a file, and no file may choose code that is "
            f"run: if you trust {it}, add {' '.join(of_files)} or {TRUST_OPTION} to the command "
            "line; in Python, to the overrides, or trust_code=True"
        )


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back."""
    return dump_yaml(config.model_dump(mode="json"))


def _read_override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(
            f"override {shown(override)}: expected key.subkey=value; a configuration file comes "
            "first"
        )
    parts = key.split(".")
    if not all(parts) or len(parts) > MOST_LEVELS:
        raise UserError(
            f"override {shown(override)}: expected names between dots, as section.key=value"
        )
    if key in _TEXTS and text[:1] not in _QUOTES and text not in _NOTHING:
        return key, text.strip()
    try:
        return key, parse_yaml(text)
    except yaml.YAMLError as error:
        what = f"{shown(text)} is not a valid YAML value: {where_and_why(error)}"
        raise UserError(f"override {shown(override)}: {what}") from None


def _refuse_second(key: str, override: str, given: dict[str, str]) -> None:
    """Refuse what would undo an override before it; `given` is by key, and gets this one, too."""
    for earlier in given:
        if key == earlier or earlier.startswith(f"{key}."):
            raise UserError(
                f"{shown(given[earlier])} and {shown(override)} set the same: give one of them"
            )
    given[key] = override


def _apply_override(tree: dict[str, Any], key: str, value: Any, override: str) -> None:
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"override {shown(override)}: {parent} is a value, not a section")
        node = child
    node[last] = value


def _refuse_unknown_keys(tree: Mapping[str, Any]) -> None:
    for key in _keys_of(tree, _DEFAULTS):
        if key not in _KNOWN:
            nearest = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.0)
            raise UserError(f"unknown setting {key}: the nearest known one is {nearest[0]}")


def _keys_of(tree: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys of `tree`, descending only where `known` has a section of that name."""
    keys = []
    for name, value in tree.items():
        keys.append(f"{prefix}{name}")
        child = known.get(name)
        if child and isinstance(child, Mapping) and isinstance(value, Mapping):
            keys += _keys_of(value, child, f"{prefix}{name}.")
    return keys


_DEFAULTS = Config().model_dump()
_KNOWN = _keys_of(_DEFAULTS, _DEFAULTS)


def _first_line(error: ValidationError) -> str:
    """What is wrong with the first key, and which others are wrong."""
    first, *others = error.errors()
    keys = list(dict.fromkeys(_key_of(each) for each in (first, *others)))
    also = f" (also wrong: {abridged(keys[1:])})" if keys[1:] else ""
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{what}{also}"
    if first["type"] == "missing":
        what = "a value is missing"
        if isinstance(first["input"], Mapping):  # the section that lacks it
            return f"{keys[0]}: {what}{also}"
    if first["type"] == "extra_forbidden":
        what = "there is no such setting"
    if first["type"] == "list_type":
        what = "expected a list, as [] or [one, another]"
    if first["type"] == "model_type":
        what = "expected a section of settings, not one value"
    for other in others:
        if other["type"] == "literal_error" and _key_of(other) == keys[0]:
            what += f", or {other['ctx']['expected']}"
    return f"{keys[0]}={shown(first['input'])}: {what[0].lower()}{what[1:]}{also}"


def _key_of(error: ErrorDetails) -> str:
    """Where it is: the setting, and within a list of sections the item, and what of that.

    Places that pydantic names have more, such as which member of a union was tried.
    """
    names = {part for known in _KNOWN for part in known.split(".")}
    key, item = "", ""
    for part in error["loc"]:
        if isinstance(part, int):
            item = f"[{part}]"
        elif part in names or (item and part.isidentifier()):
            key, item = f"{key}{item}.{part}".lstrip("."), ""
    return key + item * (error["type"] == "model_type")
