"""`mpiadv plan`: measure crafting and training here, then say what to expect of a job. No logic."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from mpiadv.comm.world import World
from mpiadv.config import TRUST_HELP, TRUST_OPTION, Config, load_config
from mpiadv.engine.entry import CommandLine, on_all_ranks
from mpiadv.engine.planning import Where, plan_run
from mpiadv.engine.session import agree, prepare
from mpiadv.errors import UserError
from mpiadv.exit_codes import EXIT_DONE
from mpiadv.forecast.text import lines_of, values_of


def parser() -> argparse.ArgumentParser:
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
        return [_at_least_one(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers, as 2,4,8") from None


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


def main(argv: Sequence[str] | None = None) -> int:
    """Plan on this rank; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    return on_all_ranks(lambda world: run(world, words))


def run(world: World, argv: Sequence[str]) -> int:
    """Plan on the only rank of `world`; returns the exit code."""
    asked = agree(world, lambda: _asked(world, argv))
    if asked is None:
        return EXIT_DONE
    config = agree(world, lambda: _config(asked))
    where = _where(asked)
    plan = agree(world, lambda: plan_run(prepare(config, world), where))
    if asked.json:
        print(json.dumps(values_of(plan), indent=2), flush=True)
    else:
        print("\n".join(lines_of(plan)), flush=True)
    return EXIT_DONE


def _asked(world: World, argv: Sequence[str]) -> argparse.Namespace | None:
    """The command line, checked; None when it is answered already."""
    try:
        asked = parser().parse_intermixed_args(argv)
    except SystemExit:
        return None
    if world.size > 1:
        raise UserError(f"plan measures one rank, and {world.size} are here: start it by itself")
    return asked


def _config(asked: argparse.Namespace) -> Config:
    words = asked.words
    path = words[0] if words and "=" not in words[0] else None
    rest = words if path is None else words[1:]
    return load_config(path, rest, trust_code=asked.trust_code)


def _where(asked: argparse.Namespace) -> Where:
    return Where(
        ranks=asked.ranks,
        ranks_per_host=asked.ranks_per_host,
        gigabits_per_second=asked.bandwidth,
        latency_milliseconds=asked.latency,
        craft_seconds=asked.craft_seconds,
        train_seconds=asked.train_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
