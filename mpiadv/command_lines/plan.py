"""The command line of planning."""

import argparse
from collections.abc import Mapping
from math import inf
from typing import Any

from mpiadv.command_lines.described import TRUST_HELP, TRUST_OPTION, CommandLine

MOST_RANKS = 1024
"""How a job goes on is simulated rank by rank."""


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv plan",
        description="Measure how long crafting and training take on this machine, a few batches of "
        "each, and say how fast the job is on several numbers of ranks, and what limits it.",
        epilog="Nothing is trained or written. Exit codes: 0 done, 2 bad input, 1 failed.",
    )
    described.add_argument(
        "words", nargs="*", metavar="CONFIG|KEY=VALUE",
        help="a YAML file, without one the digits defaults, and settings, as section.key=value",
    )  # fmt: skip
    for option, settings in _OPTIONS.items():
        described.add_argument(option, **settings)
    return described


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return number


def _ranks(text: str) -> list[int]:
    try:
        ranks = [_at_least_one(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers, as 2,4,8") from None
    if max(ranks) > MOST_RANKS:
        raise argparse.ArgumentTypeError(f"{max(ranks)}: expected at most {MOST_RANKS}")
    return ranks


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < inf:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return number


def _positive(text: str) -> float:
    if _not_negative(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return float(text)


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--ranks": {
        "type": _ranks,
        "metavar": "N,N,...",
        "help": "numbers of ranks; without it, up to that from which more are no faster",
    },
    "--ranks-per-host": {
        "type": _at_least_one, "metavar": "N",
        "help": "without it, as many as there are GPUs here, or all on one host",
    },
    "--bandwidth": {
        "type": _positive, "metavar": "GBIT", "help": "between hosts, per second; 10 without it",
    },
    "--latency": {
        "type": _not_negative, "metavar": "MS", "help": "between hosts, one way; 0.1 without it",
    },
    "--craft-seconds": {
        "type": _positive, "metavar": "S", "help": "of a batch, instead of the time measured here",
    },
    "--train-seconds": {
        "type": _positive, "metavar": "S", "help": "of a batch, instead of the time measured here",
    },
    TRUST_OPTION: {"action": "store_true", "help": TRUST_HELP},
    "--json": {"action": "store_true", "help": "print the figures for programs"},
}  # fmt: skip
