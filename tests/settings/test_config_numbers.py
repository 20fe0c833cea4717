"""Every number of the configuration has bounds and takes nothing else for a number."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mpiadv.process.errors import UserError
from mpiadv.settings import load_config, parse_config
from mpiadv.settings.config import Config
from mpiadv.settings.dotted_keys import nested

SCHEMA = Config.model_json_schema()
"""What pydantic itself knows of the fields, so that none is forgotten."""


def _numbers(
    schema: Mapping[str, Any], key: str = ""
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Each number of a schema: its setting, a value that holds it at `...`, and its own schema.

    Of a list of sections each number is told with its item, as `attack.further[0].epsilon`.
    """
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    for name, field in schema.get("properties", {}).items():
        yield from _numbers(field, f"{key}.{name}".lstrip("."))
    for choice in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _numbers(choice, key)
    for items in (schema.get("items"), *schema.get("prefixItems", ())):
        if items and "$ref" in items:
            yield from _numbers(items, f"{key}[0]")
            continue
        for name, value, number in _numbers(items, key) if items else ():
            yield name, [value] * schema.get("minItems", 1), number
    if schema.get("type") in ("integer", "number"):
        yield key, ..., schema


BOUNDS = ("ge", "gt", "minimum", "exclusiveMinimum"), ("le", "lt", "maximum", "exclusiveMaximum")
NUMBERS = {key: (value, number) for key, value, number in _numbers(SCHEMA)}


def _with(key: str, number: Any) -> dict[str, Any]:
    """A configuration with a number in the place of the setting's."""
    setting, _, field = key.partition("[0].")
    if field:
        return nested({setting: [{"name": "l2", field: number}]})
    holder, _ = NUMBERS[key]
    value = number if holder is ... else [number for _ in holder]
    others = {"model.std": [1.0]} if key == "model.mean" else {}
    return nested({key: value, **({"model.mean": [0.0]} if key == "model.std" else others)})


def _refusal(key: str, number: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(_with(key, number))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_number_is_found() -> None:
    assert len(NUMBERS) >= 42
    assert {"seed", "optimizer.betas", "schedule.milestones", "training.threads"} < set(NUMBERS)
    assert {"attack.further[0].epsilon", "attack.further[0].degrees"} < set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_number_has_bounds_that_are_told(key: str) -> None:
    _, number = NUMBERS[key]
    low, high = (next((number[name] for name in names if name in number), None) for names in BOUNDS)
    assert low is not None and high is not None, f"{key} needs a lower and an upper bound"
    assert f"{int(low)}" in _refusal(key, low - 1)
    for large in (int(high) * 10 + 10, 10**30, 1e300):
        assert f"{int(high)}" in _refusal(key, large)


@pytest.mark.parametrize("key", NUMBERS)
def test_nothing_else_is_taken_for_a_number(key: str) -> None:
    is_whole = NUMBERS[key][1]["type"] == "integer"
    for other in (True, False, "", "1_0", "0x1", "1:30", "yes", [], {}, b"1"):
        assert "expected a " in _refusal(key, other), other
    for other in (1.0, 1.5, "1.0", "01", "1e2") if is_whole else ("1,5", "1 000", "eins"):
        assert "expected a " in _refusal(key, other), other
    for other in (float("nan"), float("inf")):
        assert key in _refusal(key, other)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("attack.epsilon=1e300", "attack.epsilon=1e+300: input should be less than or equal to"),
        ("seed=18446744073709551616", "input should be less than or equal to 1000000000000000000"),
        ("attack.num_steps=1e20", "input should be less than or equal to 100000"),
        ("training.threads=100000", "input should be less than or equal to 1024, or 'auto'"),
        ("data.crop_padding=100000", "input should be less than or equal to 1024"),
        ("seed=010", "seed='010': expected a whole number"),
        ("deadline_seconds=1:30", "deadline_seconds='1:30': expected a number"),
        ("seed=", "seed=None: expected a whole number"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: a value is missing"),
    ],
)
def test_number_on_the_command_line_is_refused_in_one_line(word: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [word])
    assert line in str(caught.value)
