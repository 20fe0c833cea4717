#!/usr/bin/env python3
"""Figures of style: how long functions and files are, and whether all is typed.

The exit code is 1 where something is beyond its limit.

A function's lines are those of its body, its docstring left out.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

MEDIAN_LINES, USUAL_LINES, MOST_LINES, FILE_LINES = 6, 20, 60, 350
"""Of functions: the median, nine in ten, each; of files: each."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    """Print the figures of each part; the exit code."""
    root = Path(__file__).resolve().parent.parent
    package = sorted((root / "mpiadv").rglob("*.py"))
    studies = [file for file in package if "studies" in file.parts]
    parts = {
        "mpiadv": [file for file in package if file not in studies],
        "studies": studies,
        "tests": sorted((root / "tests").rglob("*.py")),
        "benchmarks": sorted((root / "benchmarks").rglob("*.py")),
    }
    faults = [fault for name, files in parts.items() for fault in _judge(name, files)]
    print("\n".join(faults) or "style: within all limits")
    return bool(faults)


def _judge(name: str, files: list[Path]) -> Iterator[str]:
    """Print a part's figures; yields what is beyond a limit."""
    lines, typed = [], []
    num_lines = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        num_lines += text.count("\n")
        if text.count("\n") > FILE_LINES:
            yield f"{file}: {text.count(chr(10))} lines, at most {FILE_LINES}"
        for function in _functions(text):
            lines.append(_body_lines(function))
            typed.append(_is_typed(function))
            if lines[-1] > MOST_LINES:
                yield f"{file}: {function.name} has {lines[-1]} lines, at most {MOST_LINES}"
    lines.sort()
    usual = lines[len(lines) * 9 // 10]
    print(
        f"{name}: {len(files)} files, {num_lines:,} lines, {len(lines):,} functions; median "
        f"{median(lines):g} lines, nine in ten up to {usual}, longest {lines[-1]}; "
        f"{100 * sum(typed) / len(typed):.4g} % typed"
    )
    if median(lines) > MEDIAN_LINES or usual > USUAL_LINES or not all(typed):
        yield f"{name}: expected a median of {MEDIAN_LINES}, nine in ten up to {USUAL_LINES}, types"


def _functions(text: str) -> list[Function]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]


def _body_lines(function: Function) -> int:
    body = function.body[ast.get_docstring(function) is not None :]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _is_typed(function: Function) -> bool:
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
    return function.returns is not None and all(argument.annotation for argument in named)


if __name__ == "__main__":
    sys.exit(main())
