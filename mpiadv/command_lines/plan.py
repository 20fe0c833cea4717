"""The command line of planning."""

from collections.abc import Mapping
from typing import Any

from mpiadv.command_lines.described import TRUST_HELP, TRUST_OPTION, CommandLine
from mpiadv.command_lines.numbers import number, whole

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


_one_rank_or_more = whole(1, MOST_RANKS)


def _ranks(text: str) -> list[int]:
    return [_one_rank_or_more(word) for word in text.split(",")]


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--ranks": {
        "type": _ranks,
        "metavar": "N,N,...",
        "help": "numbers of ranks; without it, up to that from which more are no faster",
    },
    "--ranks-per-host": {
        "type": whole(1, MOST_RANKS), "metavar": "N",
        "help": "without it, as many as there are GPUs here, or all on one host",
    },
    "--bandwidth": {
        "type": number(1e6), "metavar": "GBIT", "help": "between hosts, per second; 10 without it",
    },
    "--latency": {
        "type": number(1e6, may_be_0=True),
        "metavar": "MS", "help": "between hosts, one way; 0.1 without it",
    },
    "--craft-seconds": {
        "type": number(1e6),
        "metavar": "S", "help": "of a batch, instead of the time measured here",
    },
    "--train-seconds": {
        "type": number(1e6),
        "metavar": "S", "help": "of a batch, instead of the time measured here",
    },
    TRUST_OPTION: {"action": "store_true", "help": TRUST_HELP},
    "--json": {"action": "store_true", "help": "print the figures for programs"},
}  # fmt: skip
