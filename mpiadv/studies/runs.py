"""The runs of a study and their settings, before anything is trained. Pure: knows no files."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mpiadv.process.errors import UserError, shown
from mpiadv.settings import Config, override_config, parse_config
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.yaml_files import parse_yaml

OF_STUDY = "study."
"""What the names of a study's own settings begin with on the command line."""

_MOST = {"ranks": 1024, "emulated_ranks": 1024, "repeats": 1000, "long_factor": 1000}
_MOST_OF_OTHERS = 10**7

_MAY_BE_EMPTY = ("refreshed_methods",)

_ADDS_RUNS = ("long",)
"""A study's own settings that leave its other runs as they are: its folder may be gone on with."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a study.

    Attributes:
        name: its folder's name.
        overrides: dotted settings to their values, on top of the preset's configuration.
        ranks: how many ranks train it.
        is_alone: whether nothing else may run beside it, because its speed is measured.
    """

    name: str
    overrides: Mapping[str, Any]
    ranks: int = 1
    is_alone: bool = False


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How large the studies are.

    Attributes:
        base: the configuration that the runs share, a nested mapping.
        bases: that of studies which have another.
        ranges: for each study its own settings: what it goes through, and how many images it uses.
    """

    base: Mapping[str, Any]
    ranges: Mapping[str, Mapping[str, Any]]
    bases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A study as the user wants it.

    Attributes:
        config: what the runs share.
        ranges: the study's own settings.
        changes: what the user changed of either, where it changes the results: dotted names.
    """

    study: str
    preset: str
    config: Config
    ranges: Mapping[str, Any]
    changes: Mapping[str, Any]


def request_of(study: str, preset_name: str, preset: Preset, words: Sequence[str]) -> Request:
    """A preset with the user's `section.key=value` and `study.key=value` words.

    Raises:
        UserError: an unknown setting, or a value that does not fit.
    """
    own = [word for word in words if word.startswith(OF_STUDY)]
    others = [word for word in words if not word.startswith(OF_STUDY)]
    config = override_config(preset.bases.get(study, preset.base), others)
    ranges = dict(preset.ranges[study])
    chosen = _chosen(study, own, ranges)
    settings = config.identity()
    keys = _changed_keys(others)
    changed = {
        name: value
        for name, value in settings.items()
        if any(key == name or key.startswith(f"{name}.") for key in keys)
    }
    return Request(
        study=study,
        preset=preset_name,
        config=config,
        ranges={**ranges, **chosen},
        changes={
            **changed,
            **{f"{OF_STUDY}{key}": value for key, value in chosen.items() if key not in _ADDS_RUNS},
        },
    )


def configuration(request: Request, run: Run, output: str) -> Config:
    """The whole configuration of a run.

    Raises:
        UserError: the run's settings do not fit the others.
    """
    tree = request.config.model_dump(mode="json")
    for key, value in {**run.overrides, "output": output}.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    return parse_config(tree)


def require_consistent(request: Request, runs: Sequence[Run]) -> None:
    """Refuse changes of what each run of the study sets itself, or of where its runs lie.

    Raises:
        UserError: naming the setting.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"study {request.study}: run {twice} would be there twice: give each value "
                        "of a list once")  # fmt: skip
    if request.config.output != Config().output:
        raise UserError(f"output={request.config.output}: a study's folder is --output FOLDER")
    require_unchanged(request, _set_by_all(runs))


def require_unchanged(request: Request, keys: Collection[str]) -> None:
    """Refuse changes of settings that the study itself sets, or by which its runs are told apart.

    Raises:
        UserError: naming the setting.
    """
    for key in sorted({*keys} & {*request.changes}):
        own = ", ".join(f"{OF_STUDY}{name}" for name in request.ranges)
        raise UserError(
            f"{key} is set by study {request.study} itself: leave it out; the study's own settings "
            f"are {own}"
        )


def _set_by_all(runs: Sequence[Run]) -> set[str]:
    """The settings in which a change would change no run."""
    return set.intersection(*(set(run.overrides) for run in runs)) if runs else set()


def _changed_keys(words: Sequence[str]) -> list[str]:
    """The dotted keys that words such as `attack.epsilon=0.2` or `seed=1` name."""
    trees = [{key: parse_yaml(text)} for key, _, text in (w.partition("=") for w in words)]
    return [key for tree in trees for key in flatten(tree)]


def _chosen(study: str, words: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for word in words:
        name, value = _range(study, word, known)
        if name in chosen:
            raise UserError(f"{OF_STUDY}{name} is given twice: give it once")
        chosen[name] = value
    return chosen


def _range(study: str, word: str, known: Mapping[str, Any]) -> tuple[str, Any]:
    name, _, text = word.removeprefix(OF_STUDY).partition("=")
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"unknown setting {OF_STUDY}{name} of study {study}: the nearest known one is "
            f"{OF_STUDY}{nearest}"
        )
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        value = None
    most = _MOST.get(name, _MOST_OF_OTHERS)
    is_none = value == [] and name in _MAY_BE_EMPTY
    if not is_none and not _fits(value, known[name], most):
        kind = _kind(known[name], most)
        raise UserError(f"{shown(word)}: expected {kind}, such as {known[name]}")
    return name, value


def _fits(value: Any, example: Any, most: int) -> bool:
    """Whether `value` is of the kind of `example`; zero fits only where the example holds one."""
    if isinstance(example, list):
        of_one = min(example)
        return (
            isinstance(value, list) and bool(value) and all(_fits(v, of_one, most) for v in value)
        )
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, int):
        return isinstance(value, int) and min(example, 1) <= value <= most
    if isinstance(example, float):
        is_number = isinstance(value, int | float) and value <= most
        return is_number and (value > 0 or value == example == 0)
    return isinstance(value, type(example))


def _kind(example: Any, most: int) -> str:
    one = min(example) if isinstance(example, list) else example
    up_to = ""
    if type(one) is int:
        up_to = f" from {min(one, 1)} to {most:,}"
    elif type(one) is float:
        up_to = f"{' above 0,' if one else ','} up to {most:,}"
    kind = _KINDS.get(type(one), "text")
    return f"a list of {kind}s{up_to}" if isinstance(example, list) else f"a {kind}{up_to}"


_KINDS = {bool: "true or false", int: "whole number", float: "number"}
